"""plan() on thousands of generated states: it leads to the target, and touches nobody else."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import plan, same_peer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    InterfaceState,
    Route,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    CreateLink,
    DeleteLink,
    SetPeers,
    SetRoutes,
    StartUnit,
    StopUnit,
)
from tests.unit.plugins.module_utils.generated import (
    FOREIGN_ROUTES,
    interface_states,
    wishes,
)
from tests.unit.plugins.module_utils.planned import carried_out, wanted_of
from tests.unit.plugins.module_utils.simulator import SimulatedNode

# They are cheap, and thousands of them are wanted.
many = settings(max_examples=6 * settings().max_examples)


def foreign(state: InterfaceState) -> frozenset[Route]:
    """Routes that nothing of ours can have set."""
    return state.routes & frozenset(FOREIGN_ROUTES)


def assert_reached(wanted: InterfaceState, before: InterfaceState, now: InterfaceState) -> None:
    """That `now` is what was wanted, in all that counts."""
    assert now.file == wanted.file
    assert now.file_is_private
    assert now.unit == wanted.unit
    if wanted.device is None or wanted.link is None:
        assert (now.device, now.link, now.routes) == (None, None, frozenset())
        return
    assert now.device is not None
    assert now.link is not None
    assert dataclasses.replace(now.device, peers={}) == dataclasses.replace(wanted.device, peers={})
    assert now.device.peers.keys() == wanted.device.peers.keys()
    for name, one in wanted.device.peers.items():
        assert same_peer(one, now.device.peers[name])
    assert now.link.up
    assert now.link.addresses == wanted.link.addresses
    assert now.link.mtu == (wanted.link.mtu or (before.link.mtu if before.link else None))
    assert now.routes - foreign(now) == wanted.routes
    assert now.config == wanted.config


def reachable(desired: Desired, actual: InterfaceState) -> InterfaceState:
    """The target; examples that are refused are not counted."""
    try:
        return wanted_of(desired, actual)
    except (Refused, InvalidInput) as error:
        event(f"refused: {type(error).__name__}")
        assume(False)
        raise


@many
@given(interface_states(), wishes())
def test_the_plan_leads_to_the_target_and_then_is_empty(actual: InterfaceState, desired: Desired) -> None:
    wanted = reachable(desired, actual)
    now = carried_out(actual, plan(actual, wanted))
    assert_reached(wanted, actual, now)
    assert plan(now, wanted) == []
    # The same request once more is served by no step at all, so nothing was left to chance the first time.
    assert plan(now, wanted_of(dataclasses.replace(desired, max_removals=0), now)) == []


@many
@given(interface_states(), wishes(states=("present",)))
def test_whoever_does_not_change_is_not_touched(actual: InterfaceState, desired: Desired) -> None:
    wanted = reachable(desired, actual)
    assume(actual.device is not None)
    live, asked = actual.device.peers, wanted.device.peers  # type: ignore[union-attr]
    there = actual.config.peers if actual.config else {}
    for step in plan(actual, wanted):
        assert not isinstance(step, (DeleteLink, CreateLink, StartUnit, StopUnit))
        if isinstance(step, SetRoutes) and foreign(actual):
            assert not foreign(actual) & set(step.remove)
        if not isinstance(step, SetPeers):
            continue
        assert set(step.remove) == live.keys() - asked.keys()
        assert set(step.added) == asked.keys() - live.keys()
        assert set(step.updated) | set(step.added) == {one.public_key for one in step.put}
        for one in step.put:
            if one.public_key not in live:
                continue
            new_endpoint = one.endpoint is not None
            assert new_endpoint or not same_peer(asked[one.public_key], live[one.public_key])
            if new_endpoint:
                bare = live[one.public_key].endpoint is None
                assert bare or there[one.public_key].endpoint != one.endpoint
                assert asked[one.public_key].endpoint == one.endpoint


@many
@given(interface_states(), wishes(), st.data())
def test_a_kill_at_any_point_is_made_good_by_the_next_run(
    actual: InterfaceState, desired: Desired, data: st.DataObject
) -> None:
    wanted = reachable(desired, actual)
    steps = plan(actual, wanted)
    whole = SimulatedNode(actual)
    moments = sum(1 for step in steps for _part in whole.parts(step))
    kill = data.draw(st.integers(0, moments), label="killed after so many parts of steps")
    node = SimulatedNode(actual)
    every_part = (None for step in steps for _part in node.parts(step))
    for _part in itertools.islice(every_part, kill):
        pass
    left = node.state()
    again = wanted_of(desired, left)
    now = carried_out(left, plan(left, again))
    assert_reached(again, left, now)
    if again.device is not None and wanted.device is not None:
        assert again.device.private_key == wanted.device.private_key
    assert plan(now, again) == []


@many
@given(interface_states(), wishes(), st.data())
def test_undoing_from_any_point_restores_what_was_there(
    actual: InterfaceState, desired: Desired, data: st.DataObject
) -> None:
    wanted = reachable(desired, actual)
    node = SimulatedNode(actual)
    steps = plan(actual, wanted)
    for step in steps[: data.draw(st.integers(0, len(steps)), label="steps done")]:
        node.apply(step)
    for _attempt in range(2):  # as converge does
        for step in plan(node.state(), actual):
            node.apply(step)
    now = node.state()
    assert plan(now, actual) == []
    assert now.file == actual.file
    assert now.routes == actual.routes
    assert (now.device is None) == (actual.device is None)
    if actual.device is not None and now.device is not None:
        assert dataclasses.replace(now.device, peers={}) == dataclasses.replace(actual.device, peers={})
        assert {name: one[:4] for name, one in now.device.peers.items()} == {
            name: one[:4] for name, one in actual.device.peers.items()
        }
        assert now.link.addresses == actual.link.addresses  # type: ignore[union-attr]
        assert now.link.mtu == actual.link.mtu  # type: ignore[union-attr]
    if actual.unit is not None and now.unit is not None:
        assert now.unit.enabled == actual.unit.enabled


@many
@given(interface_states(), wishes(states=("present",)))
def test_the_target_holds_no_more_and_no_less_than_was_asked_for(
    actual: InterfaceState, desired: Desired
) -> None:
    wanted = reachable(desired, actual)
    device, config = wanted.device, wanted.config
    assert isinstance(config, Config)
    assert device is not None
    assert device.peers == config.peers
    if desired.peers is not None:
        assert desired.peers.items() <= device.peers.items()
        if desired.purge_peers:
            assert device.peers == desired.peers
    for name in ("private_key", "listen_port", "fwmark"):
        if getattr(desired, name) is not None:
            assert getattr(device, name) == getattr(config, name) == getattr(desired, name)
    assert wanted.routes == wanted_routes(config.table, config.addresses, config.peers.values())
    assert device.public_key not in device.peers
