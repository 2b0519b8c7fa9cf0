from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import reading, source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import AnotherDigest, render
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused, WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import (
    Node,
    free_port,
    interface_state,
    listen_ports,
    port_is_free,
    read_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    Link,
    Route,
    Unit,
)
from tests.unit.plugins.module_utils import stand_in_programs
from tests.unit.plugins.module_utils.generated import by_key, key, peer, private_key, public_key_of
from tests.unit.plugins.module_utils.printed import ADDRESSES, DEVICE, ROUTES_4, ROUTES_6
from tests.unit.plugins.module_utils.stand_in_programs import StandIns

stand_ins = stand_in_programs.stand_ins


class Programs:
    """What ip and wg answer; `asked` are the commands that were run."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.dumps = {"wg0": DEVICE, "wg1": DEVICE}
        self.unreadable: dict[str, str] = {}

    def run(
        self, argv: list[str], check: bool = True, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        del check
        assert timeout  # or a node that hangs would be waited for without end
        self.asked.append(argv)
        if argv[0] == "ip":
            entries = ADDRESSES if "address" in argv else ROUTES_4 if "-4" in argv else ROUTES_6
            return subprocess.CompletedProcess(argv, 0, json.dumps(entries), "")
        if argv[2] != "all":
            if argv[2] in self.dumps:
                return subprocess.CompletedProcess(argv, 0, self.dumps[argv[2]], "")
            return subprocess.CompletedProcess(argv, 1, "", f"Unable to access interface {argv[2]}: Broken")
        out = "".join(f"{name}\t{line}\n" for name, text in self.dumps.items() for line in text.splitlines())
        err = "".join(f"Unable to access interface {name}: {why}\n" for name, why in self.unreadable.items())
        return subprocess.CompletedProcess(argv, 1 if err else 0, out, err)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs()
    monkeypatch.setattr(source, "run", made.run)
    return made


@pytest.mark.parametrize("names", [None, ["wg0"], ["wg0", "wg1", "wg5", "wg9"]], ids=["all", "one", "many"])
def test_a_node_is_read_by_a_few_commands(programs: Programs, names: list[str] | None) -> None:
    node = read_node(names)
    assert len(programs.asked) == 4
    assert node.links["wg0"] == Link(True, 1420, frozenset({"10.0.0.1/24", "fd00::1/64"}))
    assert node.links["wg1"].up is False
    assert node.devices["wg0"] == Device(private_key(1), public_key_of(private_key(1)), 51820, 0, {})
    assert node.routes["wg0"] == {
        Route("10.9.0.0/16", "main"),
        Route("10.8.0.1/32", "51820"),
        Route("0.0.0.0/0", "77"),
        Route("fd09::/64", "main"),
        Route("fd08::1/128", "main"),
        Route("::/0", "main"),
    }
    assert node.unreadable == {}
    assert node.default_mtu() == 1420


def test_the_default_mtu_without_a_way_out() -> None:
    assert Node().default_mtu() == 1420
    assert Node(links={"ppp0": Link(True, 1492, frozenset())}, default_device="ppp0").default_mtu() == 1412


@pytest.mark.parametrize("names", [["wg0"], None], ids=["one", "all"])
def test_an_interface_that_wg_cannot_read_is_not_taken_for_a_missing_one(
    programs: Programs, names: list[str] | None
) -> None:
    del programs.dumps["wg0"]
    programs.unreadable["wg0"] = "Protocol not supported"
    node = read_node(names)
    assert "wg0" in node.unreadable
    with pytest.raises(WireGuardError, match=r"^wg0 is there but cannot be read: "):
        interface_state(node, "wg0", "/nonexistent/wg0.conf", None)


def test_an_interface_that_the_dump_leaves_out_is_unreadable(programs: Programs) -> None:
    del programs.dumps["wg0"]
    assert read_node(None).unreadable == {"wg0": "wg show all dump does not name it"}


def test_a_dump_cut_short_is_refused(programs: Programs) -> None:
    programs.dumps["wg0"] = DEVICE[:-5]
    with pytest.raises(IncompleteDump):
        read_node(["wg0"])


def test_a_dump_that_fails_as_a_whole_is_no_node_without_interfaces(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        if argv[0] == "wg":
            return subprocess.CompletedProcess(argv, 1, "", "Unable to list interfaces: Not permitted\n")
        return programs.run(argv, **how)

    monkeypatch.setattr(source, "run", run)
    with pytest.raises(
        IncompleteDump, match=r"^wg show all dump failed: Unable to list interfaces: Not permitted$"
    ):
        read_node(None)


def test_an_answer_that_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        source, "run", lambda argv, **_how: subprocess.CompletedProcess(argv, 0, "Object", "")
    )
    with pytest.raises(WireGuardError, match=r"^ip -json -details address show did not answer in JSON$"):
        read_node([])


@pytest.mark.parametrize("text", ["", "\n", "[]", "[{},{}]"])
def test_a_node_without_links_is_one_that_did_not_answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(
        source,
        "run",
        lambda argv, **_how: subprocess.CompletedProcess(argv, 0, text if argv[0] == "ip" else "", ""),
    )
    with pytest.raises(WireGuardError, match=r"^ip -json -details address show did not answer"):
        read_node(None)


def test_a_node_may_have_no_routes(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, "", "") if "route" in argv else programs.run(argv, **how)

    monkeypatch.setattr(source, "run", run)
    assert read_node(["wg0"]).routes == {}


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("name", "kind"), [("eth0", "hardware"), ("wg5", "dummy"), ("tap9", "tun")])
def test_an_interface_of_another_kind_is_left_alone(name: str, kind: str) -> None:
    with pytest.raises(
        Refused, match=rf"^{name} exists on this node and is not a WireGuard interface .* {kind}\)$"
    ):
        interface_state(read_node([name]), name, "/nonexistent/x.conf", None)


CONFIG = Config(private_key(1), 51820, (), by_key(peer(1, "10.0.0.1/32")))


@pytest.mark.usefixtures("programs")
def test_the_state_of_an_interface(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(render(CONFIG))
    path.chmod(0o600)
    state = interface_state(read_node(["wg0"]), "wg0", str(path), Unit(True, False))
    assert (state.config, state.file, state.file_is_private) == (CONFIG, render(CONFIG), True)
    assert state.unit == Unit(True, False)
    assert state.device is not None
    path.chmod(0o640)
    assert not interface_state(read_node(["wg0"]), "wg0", str(path), None).file_is_private


@pytest.mark.parametrize("raw", [b"[Interface\n", b"", b"\xff\xfe\x00", b"PrivateKey = x"])
def test_a_broken_file_is_a_file_without_meaning(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "wg0.conf"
    path.write_bytes(raw)
    state = interface_state(Node(), "wg0", str(path), None)
    assert state.config is None
    assert state.file is not None


def test_nothing_is_there() -> None:
    state = interface_state(Node(), "wg0", "/nonexistent/wg0.conf", None)
    assert (state.device, state.link, state.file, state.config, state.routes) == (
        None,
        None,
        None,
        None,
        frozenset(),
    )


def test_a_file_that_is_known_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(render(CONFIG))
    known = interface_state(Node(), "wg0", str(path), None)
    monkeypatch.setattr(reading, "parse_beside", lambda *_: pytest.fail("parsed again"))
    assert interface_state(Node(), "wg0", str(path), None, known).config is known.config


class Elsewhere(source.ThisNode):
    """A source that tells of a long file's peers by a digest."""

    def __init__(self, text: str) -> None:
        self._text = text

    def file(self, path: str) -> source.File | None:
        del path
        head, _begin, rest = self._text.partition("[Peer]\n")
        return source.File(f"{head}[Peer]\n", True, hashlib.sha256(f"[Peer]\n{rest}".encode()).hexdigest())


def test_a_file_with_a_digest_has_the_peers_that_run() -> None:
    device = Device(private_key(1), key(1), 51820, 0, by_key(peer(1, "10.0.0.1/32", endpoint="192.0.2.9:9")))
    node = Node(links={"wg0": Link(True, 1420, frozenset())}, devices={"wg0": device})
    node.source = Elsewhere(render(CONFIG))
    state = interface_state(node, "wg0", "/etc/wireguard/wg0.conf", None)
    assert state.config is not None
    assert state.config.peers is device.peers
    assert (state.config.private_key, state.config.listen_port) == (private_key(1), 51820)
    device.peers[key(2)] = peer(2)
    with pytest.raises(AnotherDigest):
        interface_state(node, "wg0", "/etc/wireguard/wg0.conf", None)


def test_the_ports_of_the_interfaces_that_can_be_read(stand_ins: StandIns) -> None:
    stand_ins.program(
        "wg",
        "printf 'wg0\\t51820\\nwg1\\t(none)\\nwg2\\t7\\n'; echo 'Unable to access interface wg3: Broken' >&2; exit 1",
    )
    assert listen_ports() == {"wg0": 51820, "wg2": 7}
    assert stand_ins.calls() == ["wg show all listen-port"]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_a_program_receives_on_is_not_free(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as program:
        program.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        port = program.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def test_a_free_port_is_free_and_none_of_those_taken() -> None:
    taken = range(1, 40_000)
    port = free_port(taken)
    assert port not in taken
    assert port_is_free(port)


def test_a_node_without_ipv6_is_asked_for_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no socket of that family to be had."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as program:
        program.bind(("::1", 0))
        port = program.getsockname()[1]
        assert not port_is_free(port)
        paths = SimpleNamespace(exists=lambda path: path != "/proc/net/if_inet6")
        monkeypatch.setattr(reading, "os", SimpleNamespace(path=paths))
        assert port_is_free(port)


def test_a_port_that_is_not_free_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def is_free(port: int) -> bool:
        asked.append(port)
        return len(asked) == 3

    monkeypatch.setattr(reading, "port_is_free", is_free)
    assert free_port() == asked[2]
    assert len(asked) == 3
