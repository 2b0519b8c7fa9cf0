"""What is different between an interface as it should be and as it is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    Expected,
    compare,
    file_difference,
    only_peers_differ,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Link, Peer, Unit
from tests.unit.plugins.module_utils.compared import DEVICE, HEALTHY, LINK, alive, many, peer_maps
from tests.unit.plugins.module_utils.generated import (
    POOL_SECRETS,
    by_key,
    interface_states,
    key,
    peer,
    preshared_key,
    private_key,
    running,
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


def test_the_file_is_compared_with_what_runs() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32"), peer(2), peer(3), peer(4)))
    live = by_key(peer(1, "10.0.0.9/32"), peer(2, endpoint="192.0.2.1:1"), peer(5))
    there = dataclasses.replace(there, device=dataclasses.replace(DEVICE, peers=live))
    assert file_difference(there) == "2 peers only in the file, 1 peer only running, 1 peer different"
    assert file_difference(HEALTHY) == ""


@pytest.mark.parametrize(
    "there",
    [
        InterfaceState(),
        dataclasses.replace(HEALTHY, device=None, link=None),
        dataclasses.replace(HEALTHY, file=None, config=None),
        dataclasses.replace(HEALTHY, file="x", config=None),
    ],
)
def test_what_is_not_there_is_not_compared(there: InterfaceState) -> None:
    assert file_difference(there) == ""


def test_addresses_and_mtu_are_compared_where_there_is_a_link() -> None:
    other = Link(True, 1380, frozenset({"10.0.0.9/24"}))
    config = dataclasses.replace(HEALTHY.config, mtu=1400, fwmark=9)  # type: ignore[type-var]
    there = dataclasses.replace(HEALTHY, config=config, link=other)
    assert file_difference(there) == "fwmark 9, other addresses, MTU 1400"
    assert file_difference(dataclasses.replace(there, link=None)) == "fwmark 9"


@pytest.mark.parametrize(
    ("difference", "only_peers"),
    [
        ("1 peer only in the file", True),
        ("2 peers only in the file, 1 peer only running, 30 peers different", True),
        ("1 peer different, listen port 7", False),
        ("another private key", False),
        ("broken: line 1: no section", False),
        ("missing", False),
    ],
)
def test_whether_a_file_differs_in_its_peers_alone(difference: str, only_peers: bool) -> None:
    assert only_peers_differ(difference) is only_peers
