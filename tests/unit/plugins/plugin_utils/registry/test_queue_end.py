"""Canceled and given back: nothing is left behind, and nothing is forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, operations, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
    OperationEvent,
    new_id,
    now,
)
from tests.unit.plugins.plugin_utils.registry import queued
from tests.unit.plugins.plugin_utils.registry.consistency import (
    assert_all_is_well,
    left_to_do,
    problems,
)
from tests.unit.plugins.plugin_utils.registry.queued import (
    ASKED,
    ELSEWHERE,
    WORKER,
    audited,
    change,
    claim,
    each_kill,
    release,
    row,
    submit,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

served = queued.served


def cancel(controller: Controller, number: str, actor: str = "api:ops") -> None:
    with controller.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, number), actor)


def test_what_nobody_has_begun_is_canceled_at_once(served: Controller) -> None:
    number = submit(served, "provision", instance=ALICE, peers=[{"name": "phone"}])
    cancel(served, number)
    found = row(served, number)
    assert (found.state, found.error, found.owner) == ("canceled", "canceled by api:ops", None)
    assert found.finished_at is not None
    assert "peers_sealed" not in found.request
    assert audited(served, number) == [("api:ops", "canceled")]
    assert claim(served) == []
    assert served.play("provision", operations=[number])["operations"] == []
    with pytest.raises(Conflict, match="has ended already: it is canceled"):
        cancel(served, number)
    assert len(audited(served, number)) == 1


@pytest.mark.parametrize("state", ["pending", "running"])
def test_whoever_is_at_work_is_asked_to_stop(served: Controller, state: str) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    claim(served)
    change(served, number, state=state)
    cancel(served, number)
    found = row(served, number)
    assert (found.state, found.cancel_requested_by, found.owner) == (state, "api:ops", WORKER)
    assert audited(served, number) == [("api:ops", "accepted")]
    cancel(served, number, "api:third")
    assert row(served, number).cancel_requested_by == "api:ops"
    assert len(audited(served, number)) == 1


def test_what_has_ended_is_not_canceled(served: Controller) -> None:
    done = submit(served, "disconnect", instance=ALICE)
    served.play("disconnect", operations=[done])
    failed = submit(served, "drift", node=NL)
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, failed), None, "no")
    for number, state in ((done, "succeeded"), (failed, "failed")):
        with pytest.raises(Conflict, match=f"it is {state}"):
            cancel(served, number)
        with served.registry.write() as session:
            assert queue.end_canceled(session, session.get_one(Operation, number), "api:ops") == []
        assert row(served, number).state == state


def test_a_retry_that_is_canceled_leaves_the_node_to_a_reconcile(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.LOST, NL)
    served.play("disconnect", operations=[number])
    served.fleet.set_weather(Weather.FINE)
    cancel(served, number)
    assert row(served, number).state == "canceled"
    (batch,) = claim(served)
    assert (batch.kind, batch.node) == ("reconcile", NL)
    assert row(served, batch.ids[0]).requested_by == "api:ops"
    with_drift(served).play("reconcile", operations=list(batch.ids))
    assert_all_is_well(served.registry, served.fleet)


def test_a_reconcile_that_is_given_up_is_not_begun_again(served: Controller) -> None:
    number = submit(served, "reconcile", node=NL)
    run = operations.Run(new_id(), token_of_the_dead(), "", frozenset([NL, DE, FR]))
    with served.registry.write() as session:
        (begun,) = queue.begin(session, [session.get_one(Operation, number)], run)
        assert begun.state == "running"
    cancel(served, number)
    assert row(served, number).state == "canceled"
    assert claim(served) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ASKED)
def test_canceled_after_a_kill_at_any_point_nothing_is_left_behind(served: Controller, kind: str) -> None:
    """The dead have begun something on nodes: who cancels it leaves no customer half-way."""
    number = submit(served, kind, **ASKED[kind])
    for point in each_kill(served, kind, number):
        if row(served, number).state not in queue.UNFINISHED:
            continue
        cancel(served, number)
        assert row(served, number).state == "canceled"
        fleet = with_drift(served)
        for batch in claim(served):
            assert batch.kind == "reconcile", point
            fleet.play("reconcile", operations=list(batch.ids))
        assert problems(served.registry, served.fleet) == [], point
        assert left_to_do(served.registry, served.fleet) == [], point


# ---- release


def test_what_a_run_has_left_is_tried_again_after_the_pause(served: Controller) -> None:
    first, second = submit(served, "disconnect", instance=ALICE), submit(served, "disconnect", instance=BOB)
    (batch,) = claim(served)
    served.play("disconnect", operations=[second])
    assert release(served, batch.ids, 30) == 1
    found = row(served, first)
    assert (found.state, found.owner, found.lease_until) == ("pending", None, None)
    assert found.not_before is not None
    assert 25 < (found.not_before - now()).total_seconds() <= 30
    assert claim(served) == []
    assert row(served, second).not_before is None


def test_what_has_its_time_already_keeps_it(served: Controller) -> None:
    """A node was away: the run has done what it could, and nothing is wrong with it."""
    number = submit(served, "disconnect", instance=ALICE)
    (batch,) = claim(served)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", operations=list(batch.ids))
    before = row(served, number).not_before
    assert release(served, batch.ids, 300) == 0
    assert row(served, number).not_before == before


def test_what_is_claimed_for_later_is_given_back_as_it_is(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    (batch,) = claim(served)
    later = now() + timedelta(minutes=5)
    change(served, number, not_before=later)
    assert release(served, batch.ids) == 0
    assert (row(served, number).owner, row(served, number).not_before) == (None, later)


def test_what_another_holds_is_not_released(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    claim(served, worker=ELSEWHERE)
    assert release(served, [number]) == 0
    assert row(served, number).owner == ELSEWHERE


def test_what_is_told_of_a_run_is_there_in_order(served: Controller) -> None:
    ids = [submit(served, "disconnect", instance=name) for name in (ALICE, BOB)]
    with served.registry.write() as session:
        for step in range(3):
            queue.tell(session, ids, "progress", {"step": step})
    with served.registry.read() as session:
        query = select(OperationEvent.operation_id, OperationEvent.data).order_by(OperationEvent.id)
        told = [(number, data["step"]) for number, data in session.execute(query)]
    assert told == [(number, step) for step in range(3) for number in ids]


def test_looks_at_nodes_that_nobody_ends_are_ended(served: Controller) -> None:
    with served.registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == NL)).one()
        for number, holder in (("alive", WORKER), ("dead", token_of_the_dead())):
            row = Operation(id=number, kind="drift", state="running", node_id=node.id, owner=holder)
            session.add(row)
    with served.registry.write() as session:
        queue.end_abandoned(session)
    states = {one.id: one.state for one in served.rows(Operation) if one.kind == "drift"}
    assert states == {"alive": "running", "dead": "canceled"}
