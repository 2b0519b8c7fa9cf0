"""The answer of wg_info, of a node whose ip, wg and systemctl are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import info, systemd
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import render
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config
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


def link(name: str, kind: str | None, *addresses: tuple[str, int], up: bool = True) -> dict[str, Any]:
    return {
        "ifname": name,
        "flags": ["UP"] if up else [],
        "mtu": 1400,
        "addr_info": [{"local": address, "prefixlen": length} for address, length in addresses],
        **({"linkinfo": {"info_kind": kind}} if kind else {}),
    }


LINKS = [
    link("eth0", None, ("192.0.2.7", 24)),
    link("wg2", "wireguard", up=False),
    link("wg0", "wireguard", ("fd00::1", 64), ("10.0.0.1", 24)),
]
ROUTES = [
    {"dst": "10.9.0.0/16", "dev": "wg0"},
    {"dst": "10.8.0.0/16", "dev": "wg0", "table": 7},
    {"dst": "10.0.0.0/24", "dev": "wg0", "protocol": "kernel"},
]
NOW = 1_763_820_100
SEEN, LATER = NOW - 100, NOW + 3600  # the clock was put back
PEER_LINES = [
    f"{key(1)}\t{preshared_key(1)}\t192.0.2.7:40123\t10.0.0.2/32,10.9.0.0/16\t{SEEN}\t1024\t2048\t25",
    f"{key(2)}\t(none)\t(none)\t10.0.0.3/32\t0\t0\t0\toff",
    f"{key(3)}\t(none)\t(none)\t(none)\t{LATER}\t1\t2\toff",
]
DUMPS = {
    "wg0": [f"{private_key(1)}\t{public_key_of(private_key(1))}\t51820\t0x7", *PEER_LINES],
    "wg2": ["(none)\t(none)\t0\toff"],
}
UNITS = """\
Id=wg-quick@wg0.service
ActiveState=active
UnitFileState=disabled

"""


@pytest.fixture
def config_dir(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a node with two interfaces: one with peers that have been heard of, one that a killed run left half made."""
    monkeypatch.setattr(info, "time", SimpleNamespace(time=lambda: NOW + 0.9))
    folder = stand_ins.root / "etc"
    folder.mkdir()
    ip, wg = {}, {"--version": "wireguard-tools v1.0.20210914 - https://example.com\n"}
    ip["-json -details address show"] = json.dumps(LINKS)
    ip["-4 -json route show table all type unicast"] = json.dumps(ROUTES)
    ip["-6 -json route show table all type unicast"] = "[]"
    wg["show all dump"] = "".join(f"{name}\t{line}\n" for name, lines in DUMPS.items() for line in lines)
    for name, lines in DUMPS.items():
        wg[f"show {name} dump"] = "".join(f"{line}\n" for line in lines)
    stand_ins.prints("ip", ip)
    stand_ins.prints("wg", wg)
    return folder


def ask(folder: Path, **params: Any) -> dict[str, Any]:
    answer = info.run({"config_dir": str(folder), **params})
    text = json.dumps(answer)
    assert private_key(1) not in text
    assert preshared_key(1) not in text
    return answer


WG2: dict[str, Any] = {
    "name": "wg2",
    "public_key": None,
    "listen_port": 0,
    "fwmark": 0,
    "up": False,
    "mtu": 1400,
    "addresses": [],
    "routes": [],
    "config_file": None,
    "file_difference": "",
    "enabled": None,
    "active": None,
    "peer_count": 0,
}


def test_all_that_is_told_of_a_node(config_dir: Path) -> None:
    answer = ask(config_dir)
    first, second = answer.pop("interfaces")
    assert answer == {
        "changed": False,
        "unreadable": {},
        "wireguard_tools": "1.0.20210914",
        "userspace": False,
    }
    peers = {one["public_key"]: one for one in first.pop("peers")}
    assert list(peers) == sorted(key(number) for number in (1, 2, 3))
    assert first == {
        "name": "wg0",
        "public_key": public_key_of(private_key(1)),
        "listen_port": 51820,
        "fwmark": 7,
        "up": True,
        "mtu": 1400,
        "addresses": ["10.0.0.1/24", "fd00::1/64"],
        "routes": [{"network": "10.8.0.0/16", "table": "7"}, {"network": "10.9.0.0/16", "table": "main"}],
        "config_file": None,
        "file_difference": "",
        "enabled": None,
        "active": None,
        "peer_count": 3,
        "truncated": False,
    }
    assert second == {**WG2, "peers": [], "truncated": False}
    assert peers[key(1)] == {
        "public_key": key(1),
        "allowed_ips": ["10.0.0.2/32", "10.9.0.0/16"],
        "endpoint": "192.0.2.7:40123",
        "persistent_keepalive": 25,
        "has_preshared_key": True,
        "latest_handshake": SEEN,
        "seconds_since_handshake": 100,
        "received": 1024,
        "sent": 2048,
    }
    # One never heard of, and one heard of in what is the future now.
    quiet, early = peers[key(2)], peers[key(3)]
    assert (quiet["has_preshared_key"], quiet["latest_handshake"], quiet["seconds_since_handshake"]) == (
        False,
        0,
        None,
    )
    assert (early["latest_handshake"], early["seconds_since_handshake"], early["allowed_ips"]) == (
        LATER,
        0,
        [],
    )


def test_those_asked_for_in_their_order_and_those_alone(config_dir: Path, stand_ins: StandIns) -> None:
    answer = ask(config_dir, interfaces=["wg9", "wg2", "wg0"])
    assert [one["name"] for one in answer["interfaces"]] == ["wg2", "wg0"]
    assert [len(one["peers"]) for one in answer["interfaces"]] == [0, 3]
    assert answer["interfaces"][1]["peers"][0]["public_key"] == min(key(number) for number in (1, 2, 3))
    assert "wg show all dump" not in stand_ins.calls()
    assert ask(config_dir, interfaces=[])["interfaces"] == []


def test_what_is_asked_for_is_checked_before_anything_is_read(config_dir: Path, stand_ins: StandIns) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(config_dir, interfaces=["wg0", "../wg1"])
    assert caught.value.field == "interfaces[1]"
    assert stand_ins.calls() == []


def test_what_is_not_wireguards_is_not_told_of(config_dir: Path) -> None:
    with pytest.raises(Refused, match=r"^eth0 exists on this node and is not a WireGuard interface"):
        ask(config_dir, interfaces=["eth0"])


def test_without_peers_there_are_their_numbers(config_dir: Path) -> None:
    first, second = ask(config_dir, peers=False)["interfaces"]
    assert (first["peer_count"], second["peer_count"]) == (3, 0)
    assert not {"peers", "truncated"} & (first.keys() | second.keys())


def test_a_long_answer_is_cut_and_says_so(
    config_dir: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the interfaces together name no more peers than that."""
    both = {name: [lines[0], *PEER_LINES] for name, lines in DUMPS.items()}
    dump = "".join(f"{name}\t{line}\n" for name, lines in both.items() for line in lines)
    stand_ins.prints("wg", {"--version": "wireguard-tools v1.0.1 - x\n", "show all dump": dump})
    names = sorted(key(number) for number in (1, 2, 3))
    for most, told in ((2, [names[:2], []]), (4, [names, names[:1]]), (6, [names, names])):
        monkeypatch.setattr(info, "MAX_ENTRIES", most)
        interfaces = ask(config_dir)["interfaces"]
        assert [[peer["public_key"] for peer in one["peers"]] for one in interfaces] == told
        assert [one["truncated"] for one in interfaces] == [len(some) < 3 for some in told]
        assert [one["peer_count"] for one in interfaces] == [3, 3]
    monkeypatch.setattr(info, "MAX_ENTRIES", 1)
    assert ask(config_dir)["interfaces"][0]["routes"] == [{"network": "10.8.0.0/16", "table": "7"}]


FILE = Config(
    private_key(1),
    51820,
    ("10.0.0.1/24", "fd00::1/64"),
    by_key(
        peer(1, "10.0.0.2/32", "10.9.0.0/16", preshared_key=preshared_key(1), persistent_keepalive=25),
        peer(2, "10.0.0.3/32"),
        peer(3),
    ),
    fwmark=7,
)


@pytest.mark.parametrize(
    ("text", "difference"),
    [
        (render(FILE), ""),
        (render(FILE).replace("ListenPort = 51820", "ListenPort = 7"), "listen port 7"),
        (render(FILE).replace("[Interface]", "[Interfaces]"), "broken"),
    ],
)
def test_the_file_is_compared_with_what_runs(config_dir: Path, text: str, difference: str) -> None:
    (config_dir / "wg0.conf").write_text(text)
    first, second = ask(config_dir)["interfaces"]
    assert (first["config_file"], first["file_difference"]) == (str(config_dir / "wg0.conf"), difference)
    assert second["config_file"] is None


def test_the_units_of_the_folder_that_wg_quick_looks_into(
    config_dir: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand_ins.root / "shown").write_text(UNITS)
    stand_ins.with_systemd(monkeypatch, f"exec /bin/cat {stand_ins.root}/shown")
    assert [one["active"] for one in ask(config_dir)["interfaces"]] == [None, None]
    monkeypatch.setattr(systemd, "DEFAULT_CONFIG_DIR", str(config_dir))
    units = [(one["enabled"], one["active"]) for one in ask(config_dir)["interfaces"]]
    assert units == [(False, True), (False, False)]


def test_an_interface_that_cannot_be_read_is_told_of_and_so_is_wireguard_go(
    config_dir: Path, stand_ins: StandIns
) -> None:
    stand_ins.program("wireguard-go")
    stand_ins.program(
        "wg",
        f'case "$1" in --version) echo "wireguard-tools v1.0.1 - x";; *) /bin/cat {stand_ins.root}/wg0-dump\n'
        "echo 'Unable to access interface wg2: Protocol not supported' >&2; exit 1;; esac",
    )
    (stand_ins.root / "wg0-dump").write_text("".join(f"wg0\t{line}\n" for line in DUMPS["wg0"]))
    answer = ask(config_dir)
    assert [one["name"] for one in answer["interfaces"]] == ["wg0"]
    assert answer["unreadable"] == {"wg2": "Protocol not supported"}
    assert (answer["userspace"], answer["wireguard_tools"]) == (True, "1.0.1")
    assert "wireguard-go" not in str(stand_ins.calls())  # looking for it does not start it
