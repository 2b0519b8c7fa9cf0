from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import (
    drift,
    drift_repair,
    traces,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    ENTRIES,
    Expected,
    check_expected,
    compare,
    file_difference,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Device,
    InterfaceState,
    Link,
    Peer,
    Unit,
)
from tests.unit.plugins.module_utils.generated import (
    POOL_NETWORKS,
    POOL_SECRETS,
    ROAMED,
    Random,
    by_key,
    interface_states,
    key,
    peer,
    peer_map,
    preshared_key,
    private_key,
    running,
)

many = settings(max_examples=5 * settings.default.max_examples)
peer_maps = st.integers(0, 2**64 - 1).map(lambda seed: peer_map(Random(seed), POOL_NETWORKS, ROAMED))


def alive(live: dict[str, Peer]) -> InterfaceState:
    there = running(live)
    return dataclasses.replace(there, device=dataclasses.replace(there.device, peers=live))  # type: ignore[type-var]


def stand_in(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, InterfaceState], node: Node | None = None
) -> None:
    """Let the module find these interfaces on the node. What was not asked for is not read."""
    monkeypatch.setattr(drift_repair, "read_node", lambda _names: node or Node())
    monkeypatch.setattr(traces, "traces", lambda _folder: {})
    for module in (drift, drift_repair):
        monkeypatch.setattr(module, "require_whole", lambda _devices, _source=None: None)
    monkeypatch.setattr(
        drift, "states_of", lambda _node, wanted: {one.name: states[one.name] for one in wanted}
    )


# ---- the seeds' shape


def test_each_kind_of_drift_has_the_seeds_shape() -> None:
    should = by_key(
        peer(1, "10.0.0.1/32"),
        peer(2, "10.0.0.2/32", "10.0.0.3/32", persistent_keepalive=25),
        peer(3, "10.0.0.4/32"),
        peer(4, preshared_key=preshared_key(1)),
    )
    there = by_key(
        peer(1, "10.0.0.1/32", endpoint="192.0.2.9:9"),
        peer(2, "10.0.0.2/32", persistent_keepalive=30),
        peer(4, preshared_key=preshared_key(2)),
        peer(9, "10.0.1.100/32", endpoint="192.0.2.4:51820"),
    )
    labels = {
        key(2): {"name": "Peer Name", "peer_id": "peer-uuid"},
        key(3): {"name": "Phone", "peer_id": "uuid-3"},
    }
    assert compare(Expected("wg0", should, labels), alive(there)) == {
        "unknown_peers": [
            {
                "interface": "wg0",
                "public_key": key(9),
                "allowed_ips": ["10.0.1.100/32"],
                "endpoint": "192.0.2.4:51820",
                "persistent_keepalive": 0,
            }
        ],
        "missing_peers": [
            {
                "interface": "wg0",
                "public_key": key(3),
                "name": "Phone",
                "allowed_ips": ["10.0.0.4/32"],
                "peer_id": "uuid-3",
            }
        ],
        "mismatched_peers": [
            {
                "interface": "wg0",
                "public_key": key(2),
                "name": "Peer Name",
                "peer_id": "peer-uuid",
                "mismatches": [
                    {
                        "field": "allowed_ips",
                        "expected": ["10.0.0.2/32", "10.0.0.3/32"],
                        "actual": ["10.0.0.2/32"],
                    },
                    {"field": "persistent_keepalive", "expected": 25, "actual": 30},
                ],
            },
            {
                "interface": "wg0",
                "public_key": key(4),
                "name": None,
                "peer_id": None,
                "mismatches": [
                    {
                        "field": "preshared_key",
                        "expected": fingerprint(preshared_key(1)),
                        "actual": fingerprint(preshared_key(2)),
                    }
                ],
            },
        ],
        "interface_issues": [],
    }


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


# ---- against a naive model


@many
@given(peer_maps, peer_maps)
def test_drift_is_that_of_the_naive_model(should: dict[str, Peer], there: dict[str, Peer]) -> None:
    found = compare(Expected("wg0", should, {}), alive(there))
    assert {one["public_key"] for one in found["unknown_peers"]} == set(there) - set(should)
    assert {one["public_key"] for one in found["missing_peers"]} == set(should) - set(there)
    differing = {}
    for name in set(should) & set(there):
        fields = {
            field
            for field in ("allowed_ips", "preshared_key", "persistent_keepalive")
            if getattr(should[name], field) != getattr(there[name], field)
        }
        if fields:
            differing[name] = fields
    assert {
        one["public_key"]: {entry["field"] for entry in one["mismatches"]}
        for one in found["mismatched_peers"]
    } == differing


@many
@given(interface_states(), peer_maps)
def test_no_secret_is_in_a_report(actual: InterfaceState, should: dict[str, Peer]) -> None:
    text = json.dumps(compare(Expected("wg0", should, {}), actual))
    assert not any(secret[:32] in text for secret in POOL_SECRETS)


# ---- the interface itself

HEALTHY = running(by_key(peer(1, "10.0.0.1/32")), addresses=("10.0.0.1/24",))
DEVICE: Device = HEALTHY.device  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("there", "issues"),
    [
        (HEALTHY, []),
        (dataclasses.replace(HEALTHY, unit=Unit(True, False)), []),
        (
            dataclasses.replace(HEALTHY, device=None, link=None),
            [("interface", "up", "missing")],
        ),
        (InterfaceState(), [("interface", "up", "missing"), ("file", "as running", "missing")]),
        (
            dataclasses.replace(HEALTHY, link=dataclasses.replace(HEALTHY.link, up=False)),  # type: ignore[type-var]
            [("interface", "up", "down")],
        ),
        (
            dataclasses.replace(HEALTHY, device=dataclasses.replace(DEVICE, listen_port=9)),
            [("listen_port", 51820, 9), ("file", "as running", "listen port 51820")],
        ),
        (dataclasses.replace(HEALTHY, unit=Unit(False, True)), [("enabled at boot", True, False)]),
        (dataclasses.replace(HEALTHY, file=None, config=None), [("file", "as running", "missing")]),
        (
            dataclasses.replace(HEALTHY, file="x", config=None, broken="line 1: no section"),
            [("file", "as running", "broken: line 1: no section")],
        ),
        (
            dataclasses.replace(HEALTHY, device=dataclasses.replace(DEVICE, private_key=private_key(5))),
            [("file", "as running", "another private key")],
        ),
    ],
)
def test_issues_of_the_interface(there: InterfaceState, issues: list[tuple[str, Any, Any]]) -> None:
    should = there.device.peers if there.device else {}
    found = compare(Expected("wg0", should, {}, listen_port=51820), there)["interface_issues"]
    assert found == [
        {"interface": "wg0", "field": field, "expected": expected, "actual": actual}
        for field, expected, actual in issues
    ]


def routed(*lost: str, **fields: Any) -> InterfaceState:
    """With two networks that need a route, but for those that are lost, and one within the interface's own subnet."""
    peers = by_key(peer(1, "10.0.0.2/32", "10.7.0.0/16"), peer(2, "fd07::/64"))
    there = running(peers, table="auto", addresses=("10.0.0.1/24",))
    routes = frozenset(route for route in there.routes if route.network not in lost)
    return dataclasses.replace(there, routes=routes, **fields)


@pytest.mark.parametrize(
    ("there", "peers", "issues"),
    [
        (routed(), None, []),
        (routed("10.7.0.0/16"), None, [("routes", "one to each network", "1 missing")]),
        (routed("10.7.0.0/16", "fd07::/64"), None, [("routes", "one to each network", "2 missing")]),
        # Of a peer that should not be there, or is not as it should be, it goes without saying.
        (routed("10.7.0.0/16", "fd07::/64"), {}, []),
        (routed("10.7.0.0/16", "fd07::/64"), by_key(peer(1, "10.0.0.2/32"), peer(2, "fd07::/64")),
         [("routes", "one to each network", "1 missing")]),
        # An interface that is down has lost them all.
        (routed("10.7.0.0/16", link=Link(False, 1420, frozenset({"10.0.0.1/24"}))), None,
         [("interface", "up", "down")]),
        (dataclasses.replace(routed(), file_is_private=False), None,
         [("file mode", "0600", "readable by others")]),
    ],
)  # fmt: skip
def test_routes_and_the_files_mode(
    there: InterfaceState, peers: dict[str, Peer] | None, issues: list[tuple[str, Any, Any]]
) -> None:
    should = there.device.peers if peers is None and there.device else peers or {}
    found = compare(Expected("wg0", should, {}), there)["interface_issues"]
    assert [(one["field"], one["expected"], one["actual"]) for one in found] == issues


LINK: Link = HEALTHY.link  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("should", "there", "issues"),
    [
        (dict(public_key=DEVICE.public_key, addresses=LINK.addresses, mtu=LINK.mtu or 1420), HEALTHY, []),
        (dict(public_key=key(5)), HEALTHY, [("public_key", key(5), DEVICE.public_key)]),
        (
            dict(addresses=frozenset({"10.0.0.1/24", "fd00::1/64"})),
            HEALTHY,
            [("addresses", ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.1/24"])],
        ),
        (dict(addresses=frozenset()), HEALTHY, [("addresses", [], ["10.0.0.1/24"])]),
        (
            dict(addresses=LINK.addresses, mtu=1280),
            dataclasses.replace(
                HEALTHY, link=dataclasses.replace(LINK, addresses=LINK.addresses | {"fe80::1/64"}, mtu=1420)
            ),
            [("mtu", 1280, 1420)],
        ),
        # What is not there has no key and no addresses: one issue says it all.
        (
            dict(public_key=key(5), listen_port=9, addresses=frozenset(), mtu=1280),
            dataclasses.replace(HEALTHY, device=None, link=None),
            [("interface", "up", "missing")],
        ),
    ],
)
def test_what_else_the_interface_should_have(
    should: dict[str, Any], there: InterfaceState, issues: list[tuple[str, Any, Any]]
) -> None:
    found = compare(Expected("wg0", HEALTHY.device.peers, {}, **should), there)  # type: ignore[union-attr]
    assert [(one["field"], one["expected"], one["actual"]) for one in found["interface_issues"]] == issues


@pytest.mark.parametrize(
    ("there", "what"),
    [
        (HEALTHY, "up"),
        (dataclasses.replace(HEALTHY, link=dataclasses.replace(LINK, up=False)), "down"),
        (dataclasses.replace(HEALTHY, device=None, link=None), "file"),
        (InterfaceState(file="x", broken="line 1: no section", unit=Unit(False, False)), "file"),
        (InterfaceState(file="x", unit=Unit(True, False)), "enabled at boot"),
        (InterfaceState(unit=Unit(True, True)), "enabled at boot"),
        (InterfaceState(unit=Unit(False, True)), "unit active"),
        (InterfaceState(unit=Unit(False, False)), None),
        (InterfaceState(), None),
    ],
)
def test_what_is_left_of_an_interface_that_should_be_gone(there: InterfaceState, what: str | None) -> None:
    found = compare(Expected("wg0", {}, {}, state="absent"), there)
    assert found == {
        "unknown_peers": [],
        "missing_peers": [],
        "mismatched_peers": [],
        "interface_issues": []
        if what is None
        else [{"interface": "wg0", "field": "interface", "expected": "absent", "actual": what}],
    }


def node_with(*names: str, kind: str = "wireguard", up: bool = True) -> Node:
    return Node(
        links={name: Link(up, 1420, frozenset()) for name in names},
        kinds=dict.fromkeys(names, kind),
        devices=dict.fromkeys(names, DEVICE) if kind == "wireguard" else {},
    )


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


def test_the_file_is_compared_with_what_runs() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32"), peer(2), peer(3), peer(4)))
    live = by_key(peer(1, "10.0.0.9/32"), peer(2, endpoint="192.0.2.1:1"), peer(5))
    there = dataclasses.replace(there, device=dataclasses.replace(DEVICE, peers=live))
    assert file_difference(there) == "2 peers only in the file, 1 peer only running, 1 peer different"
    assert file_difference(HEALTHY) == ""


# ---- parameters


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, ""),
        ({"interface": "wg0"}, "peers"),
        ({"interface": "wg0/..", "peers": []}, "interface"),
        ({"interface": "wg0", "peers": [], "interfaces": []}, "interface"),
        ({"interface": "wg0", "peers": [{"public_key": "x"}]}, "peers[0].public_key"),
        ({"interface": "wg0", "peers": [], "listen_port": 0}, "listen_port"),
        ({"interfaces": {}}, "interfaces"),
        ({"interfaces": ["wg0"]}, "interfaces[0]"),
        ({"interfaces": [{"interface": "wg0"}]}, "interfaces[0].peers"),
        ({"interfaces": [{"peers": []}]}, "interfaces[0].interface"),
        ({"interfaces": [{"interface": "wg0", "peers": [], "port": 5}]}, "interfaces[0].port"),
        (
            {"interfaces": [{"interface": "wg0", "peers": [], "x" * 1_000_000: 5}]},
            "interfaces[0]." + "x" * 40,
        ),
        ({"interfaces": [{"interface": "wg0", "peers": []}] * 2}, "interfaces[1].interface"),
        ({"interfaces": [{"interface": "wg0", "peers": [5]}]}, "interfaces[0].peers[0]"),
        ({"interface": "wg0", "state": "present"}, "peers"),
        ({"interface": "wg0", "state": "gone"}, "state"),
        ({"interfaces": [{"interface": "wg0", "state": ["absent"]}]}, "interfaces[0].state"),
        ({"interfaces": [{"interface": "..", "state": "absent"}]}, "interfaces[0].interface"),
        ({"interfaces": [{"interface": "wg0", "state": "absent"}] * 2}, "interfaces[1].interface"),
        ({"interface": "wg0", "peers": [], "public_key": "x"}, "public_key"),
        ({"interface": "wg0", "peers": [], "addresses": "10.0.0.1/24"}, "addresses"),
        ({"interface": "wg0", "peers": [], "addresses": ["10.0.0.1/24", "x"]}, "addresses[1]"),
        ({"interface": "wg0", "peers": [], "mtu": 1}, "mtu"),
    ],
)
def test_parameters_are_checked_and_named(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_expected(params)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


def test_labels_are_kept_for_the_report() -> None:
    peers = [{"public_key": key(1), "name": "Phone", "peer_id": "a"}, {"public_key": key(2), "name": None}]
    assert check_expected({"interface": "wg0", "peers": peers}) == [
        Expected("wg0", by_key(peer(1), peer(2)), {key(1): {"name": "Phone", "peer_id": "a"}})
    ]


def test_fields_are_taken_in_normal_form() -> None:
    params = {
        "interface": "wg0",
        "peers": [],
        "public_key": key(7),
        "addresses": ["10.0.0.1/24", "FD00:0::1/64"],
        "mtu": "1380",
    }
    assert check_expected(params) == [
        Expected(
            "wg0",
            {},
            {},
            public_key=key(7),
            addresses=frozenset({"10.0.0.1/24", "fd00::1/64"}),
            mtu=1380,
        )
    ]
