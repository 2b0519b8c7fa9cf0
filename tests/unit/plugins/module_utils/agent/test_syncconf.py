"""What a syncconf may change: peers, and nothing else."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands, converge, lock
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import memory
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import syncconf as module
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import NOTHING
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    running,
)
from tests.unit.plugins.module_utils.stand_in_programs import program

CONFIG = f"[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0.2/32\n"


def edited(actual: InterfaceState) -> Desired:
    asked = module._Asked(base64.b64encode(CONFIG.encode()).decode(), NOTHING)
    return module._edit(Desired("wg0", enabled=None), actual, asked)


def test_only_the_peers_are_asked_for() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32")))
    wanted = Desired("wg0", enabled=None, peers=by_key(peer(1, "10.0.0.2/32")))
    assert edited(there) == wanted
    assert edited(dataclasses.replace(there, file=None, config=None)) == wanted


@pytest.mark.parametrize("file", ["with one more", "gone"])
def test_what_the_file_does_not_bear_out_is_read_a_second_time(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where all that runs is as asked for: one that was not told of would stay."""
    asked_again: list[list[str]] = []
    monkeypatch.setattr(converge, "require_whole", lambda devices: asked_again.append(list(devices)))
    there = running(by_key(peer(1, "10.0.0.2/32")))
    if file == "gone":
        there = dataclasses.replace(there, file=None, config=None)
    else:
        filed = running(by_key(peer(1, "10.0.0.2/32"), peer(2, "10.0.0.3/32")))
        there = dataclasses.replace(there, file=filed.file, config=filed.config)
    monkeypatch.setattr(converge, "have_tools", lambda: False)  # there is no interface to ask
    monkeypatch.setattr(converge, "interface_state", lambda *_asked: there)
    asked = module._Asked(base64.b64encode(CONFIG.encode()).decode(), NOTHING)
    (outcome,) = converge.converge(
        [Desired("wg0", enabled=None)],
        True,
        edit=lambda desired, actual: module._edit(desired, actual, asked),
    )
    assert outcome.error is None
    assert asked_again == [["wg0"]]


def test_a_file_that_cannot_be_understood_is_not_written_anew() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32")), table="off")
    there = dataclasses.replace(
        there,
        file=f"{there.file}PostUp\n",
        config=None,
        broken="line 9: is neither a section nor key = value",
    )
    with pytest.raises(
        Refused,
        match=r"^/etc/wireguard/wg0\.conf cannot be understood \(line 9: is neither .*\): repair or remove it$",
    ):
        edited(there)


# ---- a whole syncconf, on a node whose wg and ip are stand-ins


LINK = {
    "ifname": "wg0",
    "flags": ["UP"],
    "mtu": 1420,
    "linkinfo": {"info_kind": "wireguard"},
    "addr_info": [],
}
WG = """case "$1 $2 $3" in
"show wg0 dump") cat {0}/dump ;;
"show wg0 peers") sed 1d {0}/dump | cut -f 1 ;;
set*) echo "$*" >>{0}/changes; cat {0}/told >&2; if [ -e {0}/next ]; then cp {0}/next {0}/dump; else exit 1; fi ;;
*) echo "$*" >&2; exit 9 ;;
esac"""


class Wg0:
    """The one interface: what runs, what its file says, and what wg was told to change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "etc" / "wg0.conf"

    def has(self, state: InterfaceState) -> None:
        (self._folder / "dump").write_text(dumped(state))
        self.file.write_text(state.file or "")
        self.file.chmod(0o600)

    def becomes(self, state: InterfaceState) -> None:
        """What wg makes of it when it is told to change anything; else it fails."""
        (self._folder / "next").write_text(dumped(state))

    def fails(self, told: str) -> None:
        (self._folder / "told").write_text(told)

    def is_of_kind(self, kind: str | None) -> None:
        """None: it is gone, though there was a folder of it a moment ago."""
        links: list[dict[str, Any]] = [{"ifname": "lo"}]
        if kind is not None:
            links.append({**LINK, "linkinfo": {"info_kind": kind}})
        (self._folder / "links").write_text(json.dumps(links))

    def changes(self) -> list[str]:
        path = self._folder / "changes"
        return path.read_text().splitlines() if path.exists() else []


def dumped(state: InterfaceState) -> str:
    device = state.device
    assert device is not None
    lines = [f"{device.private_key}\t{device.public_key}\t{device.listen_port}\toff"]
    for one in device.peers.values():
        fields = (one.public_key, one.preshared_key or "(none)", "(none)", ",".join(one.allowed_ips))
        lines.append("\t".join((*fields, "0", "0", "0", "off")))
    return "\n".join([*lines, ""])


@pytest.fixture
def wg0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wg0:
    for name in ("net/wg0", "etc"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(module, "LINKS", str(tmp_path / "net"))
    monkeypatch.setattr(module, "Desired", functools.partial(Desired, config_dir=str(tmp_path / "etc")))
    monkeypatch.setattr(memory, "_MEMORY", {})
    monkeypatch.setattr(lock, "FOLDER", str(tmp_path / "locks"))
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "ip", f"case $1 in -json) cat {tmp_path}/links ;; *) echo '[]' ;; esac")
    program(tmp_path, "wg", WG.format(tmp_path))
    made = Wg0(tmp_path)
    made.fails("")
    made.is_of_kind("wireguard")
    return made


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def brought(interface: str = "wg0", **fields: object) -> Answer:
    return module.syncconf(interface, json.dumps(fields).encode())


def failed(problem: str) -> dict[str, str]:
    return {"error": f"Failed to synchronize configuration: {problem}"}


def test_what_is_asked_for_runs_and_stands_in_the_file(wg0: Wg0) -> None:
    before, after = running(by_key(peer(1, "10.0.0.1/32"))), running(by_key(peer(1, "10.0.0.2/32")))
    wg0.has(before)
    wg0.becomes(after)
    assert brought(config=encoded(CONFIG), max_removals=None) == Answer(200, module.DONE)
    assert wg0.changes() == [
        f"set wg0 peer {key(1)} preshared-key /dev/null persistent-keepalive 0 allowed-ips 10.0.0.2/32"
    ]
    assert wg0.file.read_text() == after.file


def test_the_second_time_nothing_changes_and_what_others_did_meanwhile_is_undone(wg0: Wg0) -> None:
    there, other = running(by_key(peer(1, "10.0.0.2/32"))), running(by_key(peer(1, "10.0.0.9/32")))
    wg0.has(there)
    wg0.becomes(there)
    for _ in range(2):
        assert brought(config=encoded(CONFIG)) == Answer(200, module.DONE)
    assert wg0.changes() == []
    state = memory.recall("wg0").state
    assert state is not None
    assert (state.device, state.file) == (there.device, there.file)
    wg0.has(other)  # what is remembered decides nothing
    assert brought(config=encoded(CONFIG)) == Answer(200, module.DONE)
    assert len(wg0.changes()) == 1
    assert wg0.file.read_text() == there.file


def test_what_the_interface_has_may_be_said_too(wg0: Wg0) -> None:
    wg0.has(running(by_key(peer(1, "10.0.0.2/32"))))
    said = f"[Interface]\nPrivateKey = {private_key(1)}\nListenPort = 51820\nFwMark = off\n"
    assert brought(config=encoded(said + CONFIG)) == Answer(200, module.DONE)
    assert wg0.changes() == []


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (f"PrivateKey = {private_key(2)}", "PrivateKey"),
        ("ListenPort = 51821", "ListenPort"),
        ("FwMark = 1", "FwMark"),
    ],
)
def test_what_the_interface_has_cannot_be_changed(wg0: Wg0, said: str, named: str) -> None:
    wg0.has(running(by_key(peer(1, "10.0.0.1/32"))))
    answer = brought(config=encoded(f"[Interface]\n{said}\n{CONFIG}"))
    told = f"{named} in the configuration is not that of the running interface, which stays as it is"
    assert (answer.status, answer.body) == (400, failed(told))
    assert wg0.changes() == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "config: is needed, a text in base64"),
        ({"config": 5}, "config: is needed, a text in base64"),
        ({"config": "", "colour": 1}, "body: unknown field 'colour'; known are config, max_removals"),
        ({"config": "", "max_removals": -1}, "max_removals: '-1' is not a number from 0 to 2147483648"),
        ({"config": "", "max_removals": True}, "max_removals: 'True' is not a number from 0 to 2147483648"),
        ({"config": "W1BlZXJd\n"}, "config: is not base64"),
        ({"config": "ü"}, "config: is not base64"),
        ({"config": "/w=="}, "config: is not text in UTF-8"),
        ({"config": ""}, "config: holds no [Peer]"),
        ({"config": encoded("[Peer]\nAllowedIPs = 10.0.0.2/32\n")},
         "config: line 1: [Peer]: PublicKey: is missing"),
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly_changes_nothing(wg0: Wg0, fields: dict[str, Any], told: str) -> None:
    wg0.has(running(by_key(peer(1, "10.0.0.1/32"))))
    answer = brought(**fields)
    assert (answer.status, answer.body) == (400, failed(told))
    assert wg0.changes() == []


def test_more_than_may_be_removed_is_not(wg0: Wg0) -> None:
    wg0.has(running(by_key(peer(1, "10.0.0.2/32"), peer(2, "10.0.0.3/32"))))
    wg0.becomes(running(by_key(peer(1, "10.0.0.2/32"))))
    answer = brought(config=encoded(CONFIG), max_removals="0")
    assert answer.status == 400
    assert "max_removals" in answer.body["error"]
    assert wg0.changes() == []
    assert brought(config=encoded(CONFIG), max_removals=1).status == 200
    assert wg0.changes() == [f"set wg0 peer {key(2)} remove"]


@pytest.mark.parametrize("name", ["wg7", "lo", "..", "a b", "x" * 16])
def test_where_no_such_interface_is_no_trace_is_left(wg0: Wg0, tmp_path: Path, name: str) -> None:  # noqa: ARG001
    answer = brought(name, config=encoded(CONFIG))
    assert answer.status == 404
    assert answer.body["error"].startswith("Failed to synchronize configuration: ")
    assert not (tmp_path / "locks").exists()


def test_an_interface_that_has_just_gone_is_none(wg0: Wg0) -> None:
    wg0.is_of_kind(None)
    answer = brought(config=encoded(CONFIG))
    assert (answer.status, answer.body) == (404, failed("there is no WireGuard interface wg0 on this node"))


def test_one_of_another_kind_is_left_alone(wg0: Wg0) -> None:
    wg0.is_of_kind("dummy")
    answer = brought(config=encoded(CONFIG))
    assert answer.status == 400
    assert "is not a WireGuard interface (it is of kind dummy)" in answer.body["error"]


def test_a_wg_that_fails_is_told_without_the_secrets(wg0: Wg0) -> None:
    secret, asked = preshared_key(1), preshared_key(2)
    wg0.has(running(by_key(peer(1, "10.0.0.2/32", preshared_key=secret))))
    wg0.fails(f"out of luck with {secret} and {asked} and {private_key(1)}")
    answer = brought(config=encoded(f"{CONFIG}PresharedKey = {asked}\n"))
    assert answer.status == 500
    assert "out of luck with (secret) and (secret) and (secret)" in answer.body["error"]
    assert "undone: wg0 is as it was before" in answer.body["error"]
    assert asked not in "".join(wg0.changes())


def test_a_node_that_cannot_be_worked_on_is_told(wg0: Wg0, tmp_path: Path) -> None:
    wg0.has(running(by_key(peer(1, "10.0.0.2/32"))))
    (tmp_path / "locks").write_text("")
    answer = brought(config=encoded(CONFIG))
    assert answer.status == 500
    assert "File exists" in answer.body["error"]
