"""The worker: what is recorded is carried out, once, by few runs."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Operation,
)
from api_shim.executor import Ended, Run
from tests.unit.api_shim import worker_runs
from tests.unit.api_shim.until import until
from tests.unit.api_shim.worker_runs import (
    ALICE,
    BOB,
    DE,
    NL,
    Plays,
    all_ended,
    many,
    row,
    served,
    submit,
    until_cancelled,
    working,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well

controller = worker_runs.controller
executor = worker_runs.executor


def test_a_burst_is_carried_out_by_few_runs(executor: Plays) -> None:
    registry = executor.controller.registry
    names = many(executor.controller, 200)
    executor.instead = lambda _run, _cancelled: time.sleep(0.5)
    with working(executor) as worker:
        ids = []
        for name in names:
            ids.append(submit(registry, "disconnect", instance=name))
            worker.wake()
        until(all_ended(registry, ids), 60)
    assert Counter(number for run in executor.runs for number in run.operations) == Counter(ids)
    assert 3 <= len(executor.runs) <= 70  # how many depends on how busy the machine is
    assert executor.overlaps == []
    assert executor.most <= 4
    assert {one.attempts for one in executor.controller.rows(Operation)} == {1}
    assert Counter(one.operation_id for one in executor.controller.rows(AuditEntry)) == Counter(ids)


def test_no_more_runs_at_once_than_allowed(executor: Plays) -> None:
    registry = executor.controller.registry
    ids = [submit(registry, "disconnect", instance=name) for name in many(executor.controller, 6)]
    executor.instead = lambda _run, _cancelled: time.sleep(0.2)
    with working(executor, runs=1):
        until(all_ended(registry, ids))
    assert executor.most == 1
    assert len(executor.runs) == 3


def test_what_was_recorded_before_is_carried_out_at_once(
    executor: Plays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.worker._POLL", 600.0)  # it looks because it is woken, or not at all
    registry = executor.controller.registry
    first = submit(registry, "provision", instance=ALICE, node=NL)
    with working(executor) as worker:
        until(all_ended(registry, [first]))
        second = submit(registry, "disconnect", instance=ALICE)
        worker.wake()
        until(all_ended(registry, [second]))
    assert_all_is_well(registry, executor.controller.fleet)


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_a_run_that_cannot_be_had_is_tried_again_and_does_not_spin(executor: Plays, how: str) -> None:
    registry, broken = executor.controller.registry, True

    def instead(_run: Run, _cancelled: threading.Event) -> Ended | None:
        if broken and how == "raises":
            raise RuntimeError("there is no such thing")
        return Ended("error", message="there is no ansible-runner") if broken else None

    executor.instead = instead
    number = submit(registry, "provision", instance=ALICE, node=NL)
    with working(executor) as worker:
        for _ in range(15):
            worker.wake()
            time.sleep(0.1)
        assert 1 <= len(executor.runs) <= 2
        until(lambda: len(executor.runs) == 3)
        waits = row(registry, number)
        assert (waits.state, waits.attempts) == ("pending", 0)
        broken = False
        until(all_ended(registry, [number]), 20)
    assert_all_is_well(registry, executor.controller.fleet)


def test_a_failing_place_is_not_in_the_way_of_others(executor: Plays) -> None:
    registry = executor.controller.registry
    served(executor.controller, ALICE)
    served(executor.controller, BOB, node=DE)
    bad, good = submit(registry, "disconnect", instance=ALICE), submit(registry, "disconnect", instance=BOB)
    executor.instead = lambda run, _cancelled: Ended("error") if bad in run.operations else None
    with working(executor):
        until(all_ended(registry, [good]))
    assert row(registry, bad).state == "pending"


def test_one_of_a_run_is_canceled_and_the_others_are_done(executor: Plays) -> None:
    registry, begun = executor.controller.registry, threading.Event()
    served(executor.controller, ALICE, BOB)
    ids = [submit(registry, "disconnect", instance=name) for name in (ALICE, BOB)]
    executor.instead = until_cancelled(executor, begun)
    with working(executor) as worker:
        assert begun.wait(30)
        with registry.write() as session:
            queue.cancel(session, session.get_one(Operation, ids[0]), "api:ops")
        worker.wake()
        until(all_ended(registry, ids[:1], "canceled"))
        until(all_ended(registry, ids[1:]))
        with registry.read() as session:
            query = select(Operation.id).where(Operation.kind == "reconcile")
            repairs = list(session.scalars(query))
        assert len(repairs) == 1
        until(all_ended(registry, repairs))
    assert row(registry, repairs[0]).request["node"] == NL
    assert row(registry, repairs[0]).requested_by == "api:ops"
    assert row(registry, ids[0]).error == "canceled by api:ops"
    # By another run, or by the reconcile, whichever was there first.
    assert row(registry, ids[1]).attempts in (1, 2)
    told = [
        (one.actor, one.result) for one in executor.controller.rows(AuditEntry) if one.operation_id == ids[0]
    ]
    assert told == [("api:ops", "accepted"), ("api:ops", "canceled")]
    assert_all_is_well(registry, executor.controller.fleet)


def test_one_that_is_done_before_its_cancellation_is_done(executor: Plays) -> None:
    registry = executor.controller.registry
    served(executor.controller, ALICE)
    number = submit(registry, "disconnect", instance=ALICE)

    def instead(run: Run, _cancelled: threading.Event) -> Ended:
        published = executor.play(run)
        with registry.write() as session:
            session.get_one(Operation, number).cancel_requested_by = "api:ops"
        return Ended("successful", published)

    executor.instead = instead
    with working(executor):
        until(all_ended(registry, [number]))
        until(lambda: len(executor.runs) == 1)
    assert [one.kind for one in executor.controller.rows(Operation) if one.kind == "reconcile"] == []


def test_the_node_of_a_canceled_one_may_be_gone(executor: Plays) -> None:
    """Then nothing is reconciled, and the others of the run are not stuck."""
    registry, begun = executor.controller.registry, threading.Event()
    served(executor.controller, ALICE, BOB)
    ids = [submit(registry, "disconnect", instance=name) for name in (ALICE, BOB)]
    executor.instead = until_cancelled(executor, begun)
    with working(executor) as worker:
        assert begun.wait(30)
        with registry.write() as session:
            operation = session.get_one(Operation, ids[0])
            stages = json.loads(json.dumps(operation.progress))
            (there,) = stages["stages"]["apply"].values()
            stages["stages"]["apply"] = {"a node that is gone": {**there, "node": "gone.example.com"}}
            operation.progress = stages
            queue.cancel(session, operation, "api:ops")
        worker.wake()
        until(all_ended(registry, ids[:1], "canceled"))
        until(all_ended(registry, ids[1:]))
