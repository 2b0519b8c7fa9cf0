from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    ENTRIES,
    Expected,
    check_expected,
    compare,
    file_difference,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Device,
    InterfaceState,
    Peer,
    Unit,
)
from tests.unit.plugins.module_utils.generated import (
    NESTED_NETWORKS,
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
    states = {"wg0": alive(live), "wg1": alive({})}
    monkeypatch.setattr(drift, "read_states", lambda wanted: {one.name: states[one.name] for one in wanted})
    params = {
        "interfaces": [
            {"interface": "wg0", "peers": [{"public_key": key(1), "allowed_ips": ["10.0.0.1"]}]},
            {"interface": "wg1", "peers": [{"public_key": key(3)}], "listen_port": 9},
        ]
    }
    answer = drift.run(params, check_mode=False, with_diff=True)
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
    monkeypatch.setattr(
        drift, "read_states", lambda _wanted: {"wg0": alive(by_key(peer(1, endpoint="192.0.2.1:1")))}
    )
    answer = drift.run(
        {"interface": "wg0", "peers": [{"public_key": key(1)}]}, check_mode=False, with_diff=False
    )
    assert answer["has_drift"] is False
    assert answer["summary"]["total_issues"] == 0
    assert all(answer[kind] == [] for kind in ENTRIES)


def test_a_long_list_is_cut_and_the_summary_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    live = by_key(*(peer(number) for number in range(3000)))
    monkeypatch.setattr(drift, "read_states", lambda _wanted: {"wg0": alive(live)})
    answer = drift.run({"interface": "wg0", "peers": []}, check_mode=False, with_diff=False)
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


# ---- what a repair would ask for


def edited(
    params: dict[str, Any], should: dict[str, Peer], actual: InterfaceState
) -> tuple[Any, drift.Repair]:
    repair = drift.Repair()
    wanted = drift._edit(drift.Desired("wg0"), actual, Expected("wg0", should, {}), params, repair)
    return wanted.peers, repair


live_maps = st.integers(0, 2**64 - 1).map(lambda seed: peer_map(Random(seed), NESTED_NETWORKS, ROAMED))


@many
@given(live_maps, peer_maps, st.booleans(), st.booleans(), st.booleans())
def test_a_repair_does_what_its_switches_allow_and_no_more(
    live: dict[str, Peer], should: dict[str, Peer], missing: bool, mismatched: bool, unknown: bool
) -> None:
    params = {"reconcile_missing": missing, "reconcile_mismatched": mismatched, "remove_unknown": unknown}
    peers, repair = edited(params, should, alive(live))
    errors = {entry["peer"] for entry in repair.errors}
    for name in live.keys() | should.keys():
        there, wanted, got = live.get(name), should.get(name), peers.get(name)
        if wanted is None:
            assert (got is None) is unknown
        elif there is None:
            assert (got is not None) is (missing and name not in errors)
        elif mismatched and name not in errors:
            assert got[:4] == wanted[:4]
        else:
            assert got[:4] == there[:4]
    nets = [net for one in peers.values() for net in one.allowed_ips]
    assert len(nets) == len(set(nets))
    for entry in repair.errors:
        assert entry["action"] == ("update" if entry["peer"] in live else "add")
