"""The commands that steps become: no secret among their arguments, many peers in one, other peers in none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import apply
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.apply import (
    PEERS_PER_CALL,
    SYNCCONF_FROM,
    apply_step,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed, WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import ZERO_KEY
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, Peer, Route
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    AdoptUnit,
    CreateLink,
    DeleteLink,
    EnableUnit,
    LinkUp,
    RemoveFile,
    RunHooks,
    SetAddresses,
    SetDevice,
    SetMtu,
    SetPeers,
    SetRoutes,
    StartUnit,
    Step,
    StopUnit,
    WriteFile,
)
from tests.unit.plugins.module_utils import stand_in_programs
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
)
from tests.unit.plugins.module_utils.stand_in_programs import StandIns

stand_ins = stand_in_programs.stand_ins


class Ran:
    """The commands that were run, what they got on stdin, and what stood in the files in memory that they name."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.stdin: list[str | None] = []
        self.files: list[dict[str, str]] = []

    def run(
        self,
        argv: Sequence[str],
        stdin: str | None = None,
        descriptors: Sequence[int] = (),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        assert check
        self.commands.append(list(argv))
        self.stdin.append(stdin)
        self.files.append({f"/proc/self/fd/{fd}": os.pread(fd, 1 << 26, 0).decode() for fd in descriptors})
        return subprocess.CompletedProcess(argv, 0, "", "")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    made = Ran()
    monkeypatch.setattr(apply, "run", made.run)
    return made


def carry_out(step: Step, peers: dict[str, Peer] | None = None) -> None:
    device = Device(private_key(1), public_key_of(private_key(1)), 51820, 0, peers or {})
    apply_step(step, "wg0", "/nonexistent/wg0.conf", device)


def test_the_private_key_is_handed_over_in_memory(ran: Ran) -> None:
    carry_out(SetDevice(private_key(1), 51820, 7))
    (argv,), (files,) = ran.commands, ran.files
    (path,) = files
    assert argv == ["wg", "set", "wg0", "listen-port", "51820", "fwmark", "7", "private-key", path]
    assert files == {path: private_key(1) + "\n"}


def test_a_port_alone(ran: Ran) -> None:
    carry_out(SetDevice(listen_port=5))
    assert ran.commands == [["wg", "set", "wg0", "listen-port", "5"]]


def test_a_mark_alone(ran: Ran) -> None:
    carry_out(SetDevice(fwmark=0))
    assert ran.commands == [["wg", "set", "wg0", "fwmark", "0"]]


def test_peers_are_set_by_one_command(ran: Ran) -> None:
    new = peer(1, "10.0.0.1/32", "fd00::1/128", preshared_key=preshared_key(1), persistent_keepalive=25)
    changed = peer(2, "10.0.0.2/32", endpoint="192.0.2.1:1")
    bare = peer(3)
    step = SetPeers((new, changed, bare), (key(4),), (key(1), key(3)), (key(2),))
    carry_out(step, by_key(new, changed, bare, peer(9)))
    (argv,), (files,) = ran.commands, ran.files
    (path,) = files
    assert files == {path: preshared_key(1) + "\n"}
    assert argv == [
        "wg", "set", "wg0",
        "peer", key(4), "remove",
        "peer", key(1), "preshared-key", path, "persistent-keepalive", "25", "allowed-ips", "10.0.0.1/32,fd00::1/128",
        # One that is there may have a preshared key that it shall lose.
        "peer", key(2), "preshared-key", "/dev/null", "endpoint", "192.0.2.1:1", "persistent-keepalive", "0",
        "allowed-ips", "10.0.0.2/32",
        "peer", key(3), "persistent-keepalive", "0", "allowed-ips", "",
    ]  # fmt: skip


def test_many_peers_take_a_few_commands_and_each_is_named_once(ran: Ran) -> None:
    peers = [peer(number, preshared_key=preshared_key(number)) for number in range(SYNCCONF_FROM - 1)]
    carry_out(SetPeers(tuple(peers), added=tuple(one.public_key for one in peers)), by_key(*peers))
    assert len(ran.commands) == -(-len(peers) // PEERS_PER_CALL)
    named = [argv[place + 1] for argv in ran.commands for place, word in enumerate(argv) if word == "peer"]
    assert named == [one.public_key for one in peers]
    assert not any(preshared_key(5) in word for argv in ran.commands for word in argv)
    assert all(len(files) <= PEERS_PER_CALL for files in ran.files)


@pytest.mark.parametrize("how", ["many", "long"])
def test_a_large_change_goes_by_a_whole_file_in_memory(ran: Ran, how: str) -> None:
    if how == "many":
        put = tuple(peer(number, persistent_keepalive=25) for number in range(SYNCCONF_FROM))
    else:
        put = (peer(1, *(f"10.{number // 250}.{number % 250}.0/24" for number in range(10_000))),)
    put = (put[0]._replace(endpoint="192.0.2.1:1"), *put[1:], peer(5000, preshared_key=preshared_key(1)))
    carry_out(SetPeers(put, added=tuple(one.public_key for one in put)), by_key(*put))
    (argv,), (files,) = ran.commands, ran.files
    (path,) = files
    assert argv == ["wg", "syncconf", "wg0", path]
    text = files[path]
    # Complete: what is missing would be removed. Only the endpoint that was asked for: others may have roamed.
    assert text.startswith(f"[Interface]\nPrivateKey = {private_key(1)}\nListenPort = 51820\n")
    assert text.count("[Peer]") == len(put)
    assert f"PublicKey = {key(5000)}\nPresharedKey = {preshared_key(1)}\n" in text
    assert f"PresharedKey = {ZERO_KEY}" in text
    assert [line for line in text.splitlines() if line.startswith("Endpoint")] == ["Endpoint = 192.0.2.1:1"]


@pytest.mark.parametrize("how", ["many", "long"])
def test_a_large_change_leaves_the_peers_alone_that_do_not_change(ran: Ran, how: str) -> None:
    """wg syncconf would take the networks off them for a moment, and with the networks their packets."""
    if how == "many":
        put = tuple(peer(number, persistent_keepalive=25) for number in range(SYNCCONF_FROM))
    else:
        put = (peer(1, *(f"10.{number // 250}.{number % 250}.0/24" for number in range(10_000))),)
    put = (put[0]._replace(endpoint="192.0.2.1:1"), *put[1:])
    carry_out(SetPeers(put, remove=(key(7000),)), by_key(*put, peer(5000, endpoint="192.0.2.2:2")))
    assert ran.commands[0] == ["wg", "set", "wg0", "peer", key(7000), "remove"]
    (path,) = ran.files[1]
    assert ran.commands[1:] == [["wg", "addconf", "wg0", path]]
    text = ran.files[1][path]
    assert "[Interface]" not in text
    assert text.count("[Peer]") == text.count(f"PresharedKey = {ZERO_KEY}") == len(put)
    assert key(5000) not in text
    assert [line for line in text.splitlines() if line.startswith("Endpoint")] == ["Endpoint = 192.0.2.1:1"]


def test_large_removals_are_named(ran: Ran) -> None:
    gone = tuple(key(number) for number in range(SYNCCONF_FROM))
    carry_out(SetPeers(remove=gone), by_key(peer(5000)))
    assert {argv[1] for argv in ran.commands} == {"set"}
    assert sum(argv.count("remove") for argv in ran.commands) == len(gone)


def test_addresses_are_added_before_others_go(ran: Ran) -> None:
    carry_out(SetAddresses(("10.0.0.2/24", "fd00::2/64"), ("10.0.0.1/24",)))
    assert ran.commands == [["ip", "-batch", "-"]]
    assert ran.stdin == [
        "address add 10.0.0.2/24 dev wg0\naddress add fd00::2/64 dev wg0\naddress del 10.0.0.1/24 dev wg0\n"
    ]


def test_an_address_that_goes_takes_no_other_with_it(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the kernel keeps when it is told so, before the first one goes."""
    monkeypatch.setattr(apply, "SETTINGS", str(tmp_path))
    (tmp_path / "wg0").mkdir()
    setting = tmp_path / "wg0" / "promote_secondaries"
    setting.write_text("0\n")
    carry_out(SetAddresses(add=("10.0.0.2/24",)))
    assert setting.read_text() == "0\n"
    kept: list[str] = []
    monkeypatch.setattr(apply, "run", lambda *_argv, **_how: kept.append(setting.read_text()))
    carry_out(SetAddresses(remove=("10.0.0.1/24",)))
    assert kept == ["1\n"]
    assert ran.stdin == ["address add 10.0.0.2/24 dev wg0\n"]


def test_routes_go_by_family(ran: Ran) -> None:
    carry_out(SetRoutes((Route("10.0.0.0/8", "main"), Route("fd00::/8", "7")), (Route("10.9.0.0/16", "7"),)))
    assert list(zip(ran.commands, ran.stdin, strict=True)) == [
        (["ip", "-4", "-batch", "-"], "route replace 10.0.0.0/8 dev wg0\n"),
        (["ip", "-4", "-batch", "-"], "route delete 10.9.0.0/16 dev wg0 table 7\n"),
        (["ip", "-6", "-batch", "-"], "route replace fd00::/8 dev wg0 table 7\n"),
    ]


def test_the_mtu(ran: Ran) -> None:
    carry_out(SetMtu(1380))
    assert ran.commands == [["ip", "link", "set", "dev", "wg0", "mtu", "1380"]]


def test_bringing_up(ran: Ran) -> None:
    carry_out(LinkUp())
    assert ran.commands == [["ip", "link", "set", "dev", "wg0", "up"]]


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    apply_step(WriteFile("[Interface]\n", None), "wg0", str(path), None)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("[Interface]\n", 0o600)
    apply_step(RemoveFile("[Interface]\n"), "wg0", str(path), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        (StartUnit(), ["start wg-quick@wg0.service"]),
        (StopUnit(), ["stop wg-quick@wg0.service", "reset-failed wg-quick@wg0.service"]),
        (AdoptUnit(), ["daemon-reload", "start wg-quick@wg0.service", "daemon-reload"]),
        (EnableUnit(True), ["enable --quiet wg-quick@wg0.service"]),
        (EnableUnit(False), ["disable --quiet wg-quick@wg0.service"]),
    ],
)
def test_units(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, step: Step, calls: list[str]) -> None:
    stand_ins.with_systemd(monkeypatch)
    carry_out(step)
    assert stand_ins.calls() == [f"systemctl {call}" for call in calls]


def test_hooks_run_in_their_order_for_their_interface(stand_ins: StandIns) -> None:
    out = stand_ins.root / "out"
    carry_out(RunHooks("post_up", (f"echo one %i >> {out}", f"echo two %i $((1 + 1)) >> {out}")))
    assert out.read_text() == "one wg0\ntwo wg0 2\n"


@pytest.mark.parametrize(
    ("hook", "fails"), [("pre_up", True), ("post_up", True), ("pre_down", False), ("post_down", False)]
)
def test_a_failing_hook_keeps_an_interface_from_coming_and_not_from_going(
    stand_ins: StandIns, hook: str, fails: bool
) -> None:
    out = stand_ins.root / "out"
    step = RunHooks(hook, ("echo 'no such chain' >&2; exit 4", f"echo after > {out}"))
    if fails:
        with pytest.raises(CommandFailed, match="failed with exit code 4: no such chain"):
            carry_out(step)
    else:
        carry_out(step)
    assert out.exists() is not fails


# ---- making and removing the interface

ADD = "ip link add dev {} type wireguard"
NO_WIREGUARD = "echo 'Error: Unknown device type.' >&2; exit 2"
NOWHERE = "wg-nowhere"  # no interface of this machine, as lo is one of any


def create(name: str) -> None:
    apply_step(CreateLink(), name, "/nonexistent", None)


def test_an_interface_is_made_by_the_kernel(stand_ins: StandIns) -> None:
    stand_ins.program("ip")
    stand_ins.program("wireguard-go")
    create(NOWHERE)
    assert stand_ins.calls() == [ADD.format(NOWHERE)]


def test_an_interface_is_made_by_wireguard_go_where_the_kernel_cannot(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WG_QUICK_USERSPACE_IMPLEMENTATION", raising=False)
    stand_ins.program("ip", NO_WIREGUARD)
    for program in ("wireguard-go", "boringtun"):
        stand_ins.program(program)
    create(NOWHERE)
    assert stand_ins.calls() == [ADD.format(NOWHERE), f"wireguard-go {NOWHERE}"]
    monkeypatch.setenv("WG_QUICK_USERSPACE_IMPLEMENTATION", "boringtun")
    create(NOWHERE)
    assert stand_ins.calls() == [ADD.format(NOWHERE), f"boringtun {NOWHERE}"]


def test_where_neither_can_it_is_said_what_to_install(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WG_QUICK_USERSPACE_IMPLEMENTATION", raising=False)
    stand_ins.program("ip", NO_WIREGUARD)
    with pytest.raises(WireGuardError) as caught:
        create(NOWHERE)
    assert str(caught.value) == (
        f"{NOWHERE} cannot be made: the kernel has no WireGuard (Error: Unknown device type.) and wireguard-go is "
        "not installed (the role vpnfleet.wireguard.node does it)"
    )


def test_a_name_that_is_taken_meanwhile_is_not_given_to_wireguard_go(stand_ins: StandIns) -> None:
    stand_ins.program("ip", "echo 'RTNETLINK answers: File exists' >&2; exit 2")
    stand_ins.program("wireguard-go")
    with pytest.raises(CommandFailed, match="File exists"):
        create("lo")
    assert stand_ins.calls() == [ADD.format("lo")]


class Sockets:
    """wireguard-go's socket stays for so many looks; the clock goes on by a second with each wait."""

    def __init__(self, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks, self.seconds = looks, 0.0
        monkeypatch.setattr(apply, "HERE", self)
        monkeypatch.setattr(apply, "time", SimpleNamespace(monotonic=lambda: self.seconds, sleep=self.sleep))

    def has_socket(self, _name: str) -> bool:
        self.looks -= 1
        return self.looks >= 0

    def sleep(self, _seconds: float) -> None:
        self.seconds += 1


def test_an_interface_is_gone_when_its_socket_is(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = Sockets(3, monkeypatch)
    apply_step(DeleteLink(), "lo", "/nonexistent", None)
    assert ran.commands == [["ip", "link", "delete", "dev", "lo"]]
    assert (sockets.looks, sockets.seconds) == (-1, 3)


def test_one_that_is_gone_already_is_not_deleted_and_its_socket_not_waited_for_for_ever(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = Sockets(1000, monkeypatch)
    apply_step(DeleteLink(), NOWHERE, "/nonexistent", None)
    assert ran.commands == []
    assert sockets.seconds == 5


def test_peers_of_an_interface_that_shall_go_are_not_set(ran: Ran) -> None:
    with pytest.raises(AssertionError, match="peers are set only on an interface that shall be"):
        apply_step(SetPeers((peer(1),), added=(key(1),)), "wg0", "/nonexistent", None)
    assert ran.commands == []


def test_every_kind_of_step_is_known(ran: Ran) -> None:
    with pytest.raises(AssertionError, match="no way to carry out"):
        carry_out("a step of another kind")  # type: ignore[arg-type]
    assert ran.commands == []
