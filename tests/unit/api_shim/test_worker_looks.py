"""Looks, plans and progress: what the worker makes of calls that change nothing."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Operation,
    OperationEvent,
)
from api_shim.executor import Ended, Run
from tests.unit.api_shim import worker_runs
from tests.unit.api_shim.until import until
from tests.unit.api_shim.worker_runs import (
    ALICE,
    BOB,
    NL,
    Plays,
    all_ended,
    row,
    served,
    submit,
    told,
    working,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well

controller = worker_runs.controller
executor = worker_runs.executor


def test_a_look_is_tried_three_times(executor: Plays) -> None:
    registry = executor.controller.registry
    number = submit(registry, "drift", node=NL)
    executor.instead = lambda _run, _cancelled: Ended("error", message="no ansible-runner")
    with working(executor):
        until(all_ended(registry, [number], "failed"), 15)
    assert len(executor.runs) == 3
    assert row(registry, number).error == "no ansible-runner"


@pytest.mark.parametrize("asked", [{"node": NL}, {}])
def test_looks_at_once_make_one_run(executor: Plays, asked: dict[str, Any]) -> None:
    """Those that come while the run starts are taken in; those that come while it reads share the next one."""
    registry = executor.controller.registry
    ids: list[str] = []
    later: list[str] = []

    def instead(_run: Run, _cancelled: threading.Event) -> Ended | None:
        if len(executor.runs) == 1:
            ids.extend(submit(registry, "drift", **asked) for _ in range(9))
        return None

    def at(point: str) -> None:
        if point.startswith("before nl1") and not later:
            later.extend(submit(registry, "drift", **asked) for _ in range(5))

    executor.instead = instead
    executor.at = at
    ids.append(submit(registry, "drift", **asked))
    with working(executor):
        until(lambda: len(ids) == 10 and all_ended(registry, ids)())
        until(lambda: len(later) == 5 and all_ended(registry, later)())
    assert len(executor.runs) == 2
    assert len({json.dumps(told(registry, number)) for number in ids}) == 1
    assert told(registry, later[0]) != told(registry, ids[0])


def test_one_of_many_that_look_goes_and_the_others_are_answered(executor: Plays) -> None:
    registry, begun = executor.controller.registry, threading.Event()
    go_on = threading.Event()

    def instead(_run: Run, cancelled: threading.Event) -> Ended | None:
        begun.set()
        assert go_on.wait(30)
        return Ended("canceled") if cancelled.is_set() else None

    executor.instead = instead
    ids = [submit(registry, "drift", node=NL) for _ in range(3)]
    with working(executor) as worker:
        assert begun.wait(30)
        with registry.write() as session:
            queue.cancel(session, session.get_one(Operation, ids[0]), "api:ops")
        worker.wake()
        until(all_ended(registry, ids[:1], "canceled"))
        go_on.set()
        until(all_ended(registry, ids[1:]))
    assert len(executor.runs) == 1


def test_a_plan_is_played_in_check_mode(executor: Plays) -> None:
    registry = executor.controller.registry
    served(executor.controller, ALICE)
    number = submit(registry, "remove", check=True, instance=ALICE)
    with working(executor):
        until(all_ended(registry, [number]))
    assert [run.check for run in executor.runs] == [True]
    assert (row(registry, number).result or {})["status"] == "planned"
    assert_all_is_well(registry, executor.controller.fleet)


def test_progress_can_be_followed(executor: Plays) -> None:
    registry = executor.controller.registry
    ids = [submit(registry, "provision", instance=name, node=NL) for name in (ALICE, BOB)]
    with working(executor):
        until(all_ended(registry, ids))
        until(lambda: len(executor.controller.rows(OperationEvent)) == 2)
    assert {one.operation_id for one in executor.controller.rows(OperationEvent)} == set(ids)
    assert {one.data["step"] for one in executor.controller.rows(OperationEvent)} == {"started"}
