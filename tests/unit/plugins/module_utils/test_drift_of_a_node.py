"""What wg_drift answers of all the interfaces of a node, and what is there that nobody asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift, drift_repair
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import ENTRIES, Expected
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, Link
from tests.unit.plugins.module_utils.compared import HEALTHY, alive, node_with, stand_in
from tests.unit.plugins.module_utils.generated import by_key, key, peer, preshared_key


def test_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    live = by_key(peer(1, "10.0.0.1/32"), peer(2, preshared_key=preshared_key(1)))
    stand_in(monkeypatch, {"wg0": alive(live), "wg1": alive({})})
    params = {
        "interfaces": [
            {"interface": "wg0", "peers": [{"public_key": key(1), "allowed_ips": ["10.0.0.1"]}]},
            {"interface": "wg1", "peers": [{"public_key": key(3)}], "listen_port": 9},
        ]
    }
    answer = drift_repair.run(params, check_mode=False, with_diff=True)
    assert answer["has_drift"] is True
    assert answer["changed"] is False
    assert answer["summary"] == {
        "unknown_count": 1,
        "missing_count": 1,
        "mismatched_count": 0,
        "interface_count": 1,
        "total_issues": 3,
    }
    assert [entry["interface"] for kind in ENTRIES for entry in answer[kind]] == ["wg0", "wg1", "wg1"]
    assert not {"reconciled", "diff", "truncated"} & answer.keys()


def test_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"wg0": alive(by_key(peer(1, endpoint="192.0.2.1:1")))})
    answer = drift_repair.run(
        {"interface": "wg0", "peers": [{"public_key": key(1)}]}, check_mode=False, with_diff=False
    )
    assert answer["has_drift"] is False
    assert answer["summary"]["total_issues"] == 0
    assert all(answer[kind] == [] for kind in ENTRIES)


def test_a_long_list_is_cut_and_the_summary_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    live = by_key(*(peer(number) for number in range(3000)))
    stand_in(monkeypatch, {"wg0": alive(live)})
    answer = drift_repair.run({"interface": "wg0", "peers": []}, check_mode=False, with_diff=False)
    assert answer["summary"]["unknown_count"] == 3000
    assert answer["truncated"] is True
    assert len(answer["unknown_peers"]) < 3000
    assert len(json.dumps(answer)) < 700_000  # a runner shows nothing of a longer one


@pytest.mark.parametrize(
    ("node", "names"),
    [
        (Node(), []),
        (node_with("wg0", "wg1"), ["wg0"]),  # it is called as instances are
        (node_with("wg10", "wg9", "wg2", "wg3"), ["wg9", "wg10"]),
        (node_with("wg", "wgx", "wg1a", "vpn4", "lo", "wg-1"), []),  # nobody's customers
        (node_with("wg7", kind="dummy"), []),
    ],
)
def test_instances_that_nobody_asked_for(node: Node, names: list[str]) -> None:
    asked = [
        Expected("wg1", {}, {}),
        Expected("wg2", {}, {}, state="absent"),
        Expected("wg3", {}, {}, state="any"),
    ]
    assert drift.unexpected(node, asked, {}) == [
        {"interface": name, "field": "interface", "expected": "absent", "actual": "up"} for name in names
    ]


def test_only_a_complete_list_makes_others_unexpected(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is reported as to be gone, or as unexpected, is left alone: no switch reaches it."""
    stand_in(monkeypatch, {"wg1": alive({}), "wg2": HEALTHY}, node_with("wg1", "wg2", "wg3", "wg4", up=False))
    touched: list[str] = []

    def converge(wanted: list[Any], *_rest: Any) -> list[Any]:
        touched.extend(desired.name for desired in wanted)
        return []

    monkeypatch.setattr(drift_repair, "converge", converge)
    params: dict[str, Any] = {
        "interfaces": [
            {"interface": "wg1", "peers": []},
            {"interface": "wg2", "state": "absent", "peers": None},
            {"interface": "wg3", "state": "any"},
        ],
        **dict.fromkeys(drift_repair.SWITCHES, True),
    }
    issues = drift_repair.run(params, check_mode=False, with_diff=False)["interface_issues"]
    assert [(one["interface"], one["actual"]) for one in issues] == [("wg2", "up")]
    answer = drift_repair.run({**params, "complete": True}, check_mode=False, with_diff=False)
    issues = answer["interface_issues"]
    assert [(one["interface"], one["actual"]) for one in issues] == [("wg2", "up"), ("wg4", "down")]
    assert answer["summary"]["interface_count"] == answer["summary"]["total_issues"] == 2
    assert touched == ["wg1", "wg1"]


def test_what_instances_have_left_behind_is_unexpected_too() -> None:
    left = {
        "wg1": "file",
        "wg2": "file",
        "wg4": "file",
        "wg5": "enabled at boot",
        "vpn4": "file",
        "wg12": "file",
    }
    found = drift.unexpected(node_with("wg2", "wg3"), [Expected("wg1", {}, {}, state="absent")], left)
    assert [(one["interface"], one["expected"], one["actual"]) for one in found] == [
        ("wg2", "absent", "up"),
        ("wg3", "absent", "up"),
        ("wg4", "absent", "file"),
        ("wg5", "absent", "enabled at boot"),
        ("wg12", "absent", "file"),
    ]


def test_a_name_that_something_else_bears_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    node = node_with("wg2")
    for name in ("wg1", "wg3", "wg4"):
        node.links[name], node.kinds[name] = Link(True, 1500, frozenset()), "dummy"
    stand_in(monkeypatch, {"wg2": alive(by_key(peer(1)))}, node)
    params: dict[str, Any] = {
        "interfaces": [
            {"interface": "wg1", "peers": [{"public_key": key(1)}]},
            {"interface": "wg2", "peers": []},
            {"interface": "wg3", "state": "absent"},
            {"interface": "wg4", "state": "any"},
        ]
    }
    answer = drift_repair.run(params, check_mode=False, with_diff=False)
    issues = answer["interface_issues"]
    assert [(one["interface"], one["expected"], one["actual"]) for one in issues] == [
        ("wg1", "up", "not WireGuard's (dummy)"),
        ("wg3", "absent", "not WireGuard's (dummy)"),
    ]
    assert [drift.is_missing(one) for one in issues] == [True, False]
    assert [one["interface"] for one in answer["unknown_peers"]] == ["wg2"]


def test_peers_are_missing_only_when_wg_says_so_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"wg2": alive({}), "wg3": alive(by_key(peer(2)))}, node_with("wg2", "wg3"))
    asked: list[str] = []

    def require_whole(devices: dict[str, Device], _source: object = None) -> None:
        asked.extend(devices)
        if devices:
            raise IncompleteDump("half")

    monkeypatch.setattr(drift, "require_whole", require_whole)
    well: dict[str, Any] = {"interface": "wg3", "peers": []}
    assert drift_repair.run({"interfaces": [well]}, False, False)["summary"]["unknown_count"] == 1
    assert asked == []
    with pytest.raises(IncompleteDump):
        drift_repair.run(
            {"interfaces": [well, {"interface": "wg2", "peers": [{"public_key": key(1)}]}]}, False, False
        )
    assert asked == ["wg2"]
