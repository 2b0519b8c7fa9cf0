"""The commands that steps become: no secret among their arguments, many peers in one, other peers in none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import apply
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.apply import (
    PEERS_PER_CALL,
    SYNCCONF_FROM,
    apply_step,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import ZERO_KEY
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, Peer, Route
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    SetAddresses,
    SetDevice,
    SetMtu,
    SetPeers,
    SetRoutes,
    Step,
)
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
)


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


def test_every_kind_of_step_is_known(ran: Ran) -> None:
    with pytest.raises(AssertionError, match="no way to carry out"):
        carry_out("a step of another kind")  # type: ignore[arg-type]
    assert ran.commands == []
