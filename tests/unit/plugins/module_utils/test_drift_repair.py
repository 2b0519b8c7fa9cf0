"""What a repair of drift does and what it leaves, each peer on its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift_repair
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    Expected,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    InterfaceState,
    Peer,
)
from tests.unit.plugins.module_utils import simulated_interfaces
from tests.unit.plugins.module_utils.compared import DEVICE, HEALTHY, alive, many, peer_maps, stand_in
from tests.unit.plugins.module_utils.generated import (
    NESTED_NETWORKS,
    ROAMED,
    by_key,
    key,
    peer,
    peer_map,
    preshared_key,
)
from tests.unit.plugins.module_utils.simulated_interfaces import Fleet

fleet = simulated_interfaces.fleet

# ---- what a repair would ask for


def edited(
    params: dict[str, Any], should: dict[str, Peer], actual: InterfaceState
) -> tuple[Any, drift_repair.Repair]:
    repair = drift_repair.Repair()
    wanted = drift_repair._edit(Desired("wg0"), actual, Expected("wg0", should, {}), params, repair)
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


# ---- each peer on its own


class Wg:
    """A node with one interface whose wg refuses to touch some peers, or all, and tells why."""

    def __init__(self, live: dict[str, Peer], refuses: set[str], fails: bool = False) -> None:
        self.live, self.refuses, self.fails = live, refuses, fails
        self.tries = 0
        self.gone_after = 1_000_000  # tries

    def converge(
        self,
        wanted: list[Desired],
        check_mode: bool,
        edit: Callable[..., Desired | None],
    ) -> list[Outcome]:
        del check_mode
        (desired,) = wanted
        before = alive(self.live) if self.tries < self.gone_after else InterfaceState()
        outcome = Outcome(desired, before, before)
        self.tries += 1
        try:
            edited = edit(desired, before)
        except Refused as error:
            outcome.error = str(error)
            return [outcome]
        if self.fails:
            outcome.error = "the disk is full"
        elif edited is not None:
            goal = edited.peers or {}
            changed = {key for key in goal.keys() | self.live.keys() if goal.get(key) != self.live.get(key)}
            if changed & self.refuses:
                outcome.error = f"wg refuses {len(changed)}"
                return [outcome]
            outcome.wanted = dataclasses.replace(
                before,
                device=dataclasses.replace(before.device, peers=goal),  # type: ignore[type-var]
            )
            self.live = goal
        return [outcome]


def one_by_one(
    monkeypatch: pytest.MonkeyPatch, wg: Wg, should: dict[str, Peer], **more: Any
) -> tuple[drift_repair.Repair, Any]:
    monkeypatch.setattr(drift_repair, "converge", wg.converge)
    monkeypatch.setattr(drift_repair, "require_whole", lambda _devices, _source=None: None)
    params = {**dict.fromkeys(drift_repair.SWITCHES, True), **more}
    return drift_repair.reconcile(params, [Expected("wg0", should, {})], [Desired("wg0")], False)


@pytest.mark.parametrize("culprits", [(1,), (21,), (9,), (1, 2, 3, 20, 21, 22, 23, 9), (1, 9), range(1, 30)])
def test_each_peer_stands_for_itself(monkeypatch: pytest.MonkeyPatch, culprits: Iterable[int]) -> None:
    live = by_key(*(peer(number, persistent_keepalive=5) for number in range(1, 6)), peer(9), peer(10))
    should = by_key(*(peer(number) for number in (*range(1, 6), *range(20, 30))))
    refused = {key(number) for number in culprits}
    wg = Wg(live, refused)
    repair, outcomes = one_by_one(monkeypatch, wg, should)
    actions = {
        **{one: "remove" for one in live if one not in should},
        **{one: "update" if one in live else "add" for one in should},
    }
    errors = {entry["peer"]: entry["action"] for entry in repair.errors}
    assert errors == {one: action for one, action in actions.items() if one in refused}
    assert {entry["error"] for entry in repair.errors} == {"wg refuses 1"}
    done = {"add": repair.added, "update": repair.updated, "remove": repair.removed}
    for kind, keys in done.items():
        assert sorted(keys) == sorted(
            one for one, action in actions.items() if action == kind and one not in refused
        )
    for one in live.keys() | should.keys():
        assert wg.live.get(one) == (live if one in refused else should).get(one)
    assert not [outcome.error for outcome in outcomes if outcome.error]


def test_networks_pass_from_one_peer_to_another_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to have them gets them after the other has let go, and where the other cannot, nobody does."""
    live = by_key(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32"))
    should = by_key(peer(3, "10.0.0.1/32"), peer(4, "10.0.0.2/32"), peer(5))
    wg = Wg(live, {key(2), key(5)})
    repair, _outcomes = one_by_one(monkeypatch, wg, should)
    assert wg.live.keys() == {key(2), key(3)}
    assert [(entry["peer"], entry["action"]) for entry in repair.errors] == [
        (key(2), "remove"),
        (key(4), "add"),
        (key(5), "add"),
    ]
    assert "overlaps" in repair.errors[1]["error"]


def test_what_is_no_matter_of_peers_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wg = Wg(by_key(peer(9)), set(), fails=True)
    repair, outcomes = one_by_one(monkeypatch, wg, by_key(*(peer(number) for number in range(500))))
    assert repair.errors == [
        {"peer": "", "interface": "wg0", "action": "reconcile", "error": "the disk is full"}
    ]
    assert [outcome.error for outcome in outcomes] == ["the disk is full"]
    assert wg.tries == 2


@pytest.mark.parametrize(
    ("after", "errors"),
    [
        (1, [("", "reconcile", "wg refuses 2")]),
        (2, [(key(1), "add", GONE := "the interface is not there any more"), (key(2), "add", GONE)]),
    ],
)
def test_an_interface_that_goes_meanwhile_is_not_made_anew(
    monkeypatch: pytest.MonkeyPatch, after: int, errors: list[tuple[str, str, str]]
) -> None:
    wg = Wg(by_key(peer(9)), {key(1)})
    wg.gone_after = after
    repair, _outcomes = one_by_one(monkeypatch, wg, by_key(peer(9), peer(1), peer(2)))
    assert [(one["peer"], one["action"], one["error"]) for one in repair.errors] == errors
    assert (repair.added, wg.live) == ([], by_key(peer(9)))


def test_thousands_that_all_fail_are_not_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    should = by_key(*(peer(number) for number in range(3000)))
    wg = Wg({}, set(should))
    repair, _outcomes = one_by_one(monkeypatch, wg, should)
    assert {entry["peer"] for entry in repair.errors} == should.keys()
    assert len(repair.errors) == 3000
    assert wg.tries <= drift_repair.MOST_TRIES + 1


def test_too_many_removals_are_an_error_of_removing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of nothing else: who is missing is added, who differs put right. Networks of those that stay are theirs."""
    strangers = by_key(*(peer(number, f"10.0.0.{number}/32") for number in range(11)))
    live = {**strangers, **by_key(peer(50, persistent_keepalive=5), peer(51, "10.0.1.51/32"))}
    should = by_key(peer(50), peer(51, "10.0.0.7/32"), peer(52), peer(53, "10.0.0.8/32"))
    wg = Wg(live, set())
    repair, outcomes = one_by_one(monkeypatch, wg, should)
    fuse, *overlaps = repair.errors
    assert (fuse["peer"], fuse["interface"], fuse["action"]) == ("", "wg0", "remove")
    assert "11 unknown peers would be removed, 10 are allowed" in fuse["error"]
    assert [(one["peer"], one["action"]) for one in overlaps] == [(key(51), "update"), (key(53), "add")]
    assert f"10.0.0.8/32 overlaps with what peer {key(8)} has" == overlaps[1]["error"]
    assert (repair.added, repair.updated, repair.removed) == ([key(52)], [key(50)], [])
    assert wg.live == {**live, **by_key(peer(50), peer(52))}
    assert not [outcome.error for outcome in outcomes if outcome.error]
    repair, _outcomes = one_by_one(monkeypatch, wg, should, max_removals=11)
    assert repair.errors == []
    assert wg.live.keys() == should.keys()


def test_too_many_removals_fail_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which tells of what was done."""
    wg = Wg(by_key(*(peer(number) for number in range(11))), set())
    stand_in(monkeypatch, {"wg0": alive(wg.live)})
    monkeypatch.setattr(drift_repair, "converge", wg.converge)
    params = {
        "interface": "wg0",
        "peers": [{"public_key": key(50)}],
        **dict.fromkeys(drift_repair.SWITCHES, True),
    }
    answer = drift_repair.run(params, check_mode=False, with_diff=False)
    assert answer["failed"] is True
    assert answer["msg"].startswith("wg0: 11 unknown peers would be removed, 10 are allowed")
    assert answer["reconciled"]["added"] == [key(50)]
    assert len(wg.live) == 12


@pytest.mark.parametrize("check_mode", [True, False])
def test_the_answer_tells_of_the_repair_line_by_line_in_diff_mode(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, check_mode: bool
) -> None:
    there = alive(by_key(peer(1, "10.0.0.1/32", preshared_key=preshared_key(1)), peer(9)))
    fleet.has("wg0", there)
    stand_in(monkeypatch, {"wg0": there})
    asked = [{"public_key": key(1), "allowed_ips": ["10.0.0.1"], "preshared_key": preshared_key(2)}]
    params = {"interface": "wg0", "peers": asked, **dict.fromkeys(drift_repair.SWITCHES, True)}
    answer = drift_repair.run(params, check_mode, with_diff=True)
    assert (answer["changed"], answer["reconciled"]["updated"], answer["reconciled"]["removed"]) == (
        True,
        [key(1)],
        [key(9)],
    )
    (diff,) = answer["diff"]
    assert f"peer: {key(9)} allowed_ips (none)" in diff["before"].splitlines()
    assert key(9) not in diff["after"]
    assert not any(preshared_key(number) in str(answer) for number in (1, 2))
    assert (fleet.nodes["wg0"].now == there) is check_mode
    assert "diff" not in drift_repair.run(params, check_mode, with_diff=False)


def test_one_that_wg_refuses_stands_for_itself_where_too_many_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    live = by_key(*(peer(number) for number in range(11)))
    wg = Wg(live, {key(50)})
    repair, _outcomes = one_by_one(monkeypatch, wg, by_key(peer(50), peer(51)))
    assert [(one["peer"], one["action"]) for one in repair.errors] == [("", "remove"), (key(50), "add")]
    assert wg.live == {**live, **by_key(peer(51))}


@pytest.mark.parametrize(
    ("there", "allowed", "mended"),
    [
        (HEALTHY, EVERY_SWITCH := dict.fromkeys(drift_repair.SWITCHES, True), False),
        # Written otherwise, and it means the same.
        (dataclasses.replace(HEALTHY, file=f"{HEALTHY.file}# a comment\n"), EVERY_SWITCH, False),
        (dataclasses.replace(HEALTHY, file=None, config=None), {"reconcile_missing": True}, True),
        (dataclasses.replace(HEALTHY, file=None, config=None), {"remove_unknown": True}, False),
        (dataclasses.replace(HEALTHY, file_is_private=False), {"reconcile_mismatched": True}, True),
        (dataclasses.replace(HEALTHY, file_is_private=False), {"reconcile_missing": True}, False),
        (dataclasses.replace(HEALTHY, file="x", config=None), {"reconcile_mismatched": True}, True),
        (dataclasses.replace(HEALTHY, unfinished="changing"), {"remove_unknown": True}, True),
        (dataclasses.replace(HEALTHY, device=dataclasses.replace(DEVICE, listen_port=9)),
         {"reconcile_mismatched": True}, True),
    ],
)  # fmt: skip
def test_where_no_peer_differs_only_drift_is_mended(
    monkeypatch: pytest.MonkeyPatch, there: InterfaceState, allowed: dict[str, bool], mended: bool
) -> None:
    asked = []

    def converge(wanted: list[Desired], _check_mode: bool, edit: Any) -> list[Outcome]:
        asked.append(edit(wanted[0], there))
        return []

    monkeypatch.setattr(drift_repair, "converge", converge)
    should = Expected("wg0", DEVICE.peers, {})
    drift_repair.reconcile(allowed, [should], [Desired("wg0")], False)
    assert [edited is not None for edited in asked] == [mended]
