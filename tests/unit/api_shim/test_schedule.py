"""Looks at the whole fleet by the clock: by one of several replicas, and whatever goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    NodeCheck,
    Operation,
    now,
)
from api_shim import schedule
from api_shim.executor import Ended, Run
from api_shim.schedule import Schedule
from tests.unit.api_shim import worker_runs
from tests.unit.api_shim.until import until
from tests.unit.api_shim.worker_runs import (
    Plays,
    all_ended,
    working,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift

controller = worker_runs.controller
executor = worker_runs.executor


def fleet_looks(registry: Registry) -> list[Operation]:
    with registry.read() as session:
        return [
            one
            for one in session.query(Operation).order_by(Operation.created_at)
            if one.kind == "drift" and one.node_id is None
        ]


def pass_by(registry: Registry, seconds: float) -> None:
    """As if all had been asked for so much earlier."""
    with registry.write() as session:
        for one in session.query(Operation):
            one.created_at -= timedelta(seconds=seconds)


def test_never_unless_asked_for(executor: Plays) -> None:
    registry = executor.controller.registry
    Schedule(registry, 0).turn()
    with working(executor) as worker:
        for _ in range(5):
            worker.wake()
            time.sleep(0.05)
    assert fleet_looks(registry) == []


def test_all_nodes_are_looked_at_each_interval(executor: Plays) -> None:
    registry = executor.controller.registry
    with working(executor, drift_interval=3600):
        until(lambda: all(one.state == "succeeded" for one in fleet_looks(registry) or [Operation()]))
    (first,) = fleet_looks(registry)
    assert first.requested_by == schedule.ACTOR
    assert {one.actor for one in executor.controller.rows(AuditEntry)} == {schedule.ACTOR}
    assert len(executor.controller.rows(NodeCheck)) == 3
    # A restart does not repeat it, and what was due meanwhile is done once.
    with working(executor, drift_interval=3600) as worker:
        worker.wake()
        time.sleep(0.3)
        assert len(fleet_looks(registry)) == 1
    pass_by(registry, 3 * 3600)
    with working(executor, drift_interval=3600):
        until(lambda: len(executor.controller.rows(NodeCheck)) == 6)
    assert len(fleet_looks(registry)) == 2


def test_of_many_replicas_one_does_it(executor: Plays) -> None:
    registry = executor.controller.registry
    for times in (1, 2):
        schedules = [Schedule(registry, 60) for _ in range(8)]
        barrier = threading.Barrier(len(schedules))

        def turn(one: Schedule, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            one.turn()

        threads = [threading.Thread(target=turn, args=(one,)) for one in schedules]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fleet_looks(registry)) == times
        with registry.write() as session:
            session.execute(update(Operation).values(state="succeeded", finished_at=now()))
        pass_by(registry, 61)


def test_one_that_is_still_at_work_is_not_doubled(executor: Plays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_LOOK_AGAIN", timedelta(seconds=0.1))
    registry, go_on = executor.controller.registry, threading.Event()

    def instead(_run: Run, _cancelled: threading.Event) -> Ended | None:
        assert go_on.wait(60)
        return None

    executor.instead = instead
    with ExitStack() as stack:
        workers = [stack.enter_context(working(executor, drift_interval=1)) for _ in range(2)]
        until(lambda: len(executor.runs) == 1)
        for _ in range(3):
            pass_by(registry, 10)
            for worker in workers:
                worker.wake()
            time.sleep(0.5)
        (only,) = fleet_looks(registry)
        assert len(executor.runs) == 1
        go_on.set()
        until(all_ended(registry, [only.id]))
        until(lambda: len(fleet_looks(registry)) > 1)


@dataclass(frozen=True)
class Failing(Registry):
    """Fails whoever writes, as often as it is told."""

    errors: list[Exception] = field(default_factory=list)

    @contextmanager
    def write(self, keep: bool = True) -> Iterator[Session]:
        """As the registry's."""
        if self.errors:
            raise self.errors.pop()
        with super().write(keep) as session:
            yield session


@pytest.mark.parametrize("error", [NotUsable("it is away"), RuntimeError("what nobody thought of")])
def test_it_outlives_whatever_goes_wrong(
    executor: Plays, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_PAUSE", 0.1)
    registry = Failing(executor.controller.registry.engine, [error] * 6)
    with working(executor, registry, drift_interval=3600) as worker:
        until(lambda: bool(executor.runs))
        assert worker.problem() is None
    assert registry.errors == []
    assert len(fleet_looks(registry)) == 1


def test_a_schedule_that_fails_stops_nothing_else(executor: Plays, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(looks, "due_in", broken)
    registry = executor.controller.registry
    number = worker_runs.submit(registry, "drift", node=worker_runs.NL)
    with working(executor, drift_interval=1):
        until(all_ended(registry, [number]))


def test_what_looks_leave_is_forgotten_after_a_day(executor: Plays) -> None:
    registry = executor.controller.registry
    worker_runs.served(executor.controller, worker_runs.ALICE)
    with_drift(executor.controller).play("drift")
    worker_runs.submit(registry, "drift")
    with registry.write() as session:
        session.execute(
            update(Operation)
            .where(Operation.kind == "drift")
            .values(state="succeeded", finished_at=now() - timedelta(days=2))
        )
    with working(executor):
        until(lambda: len(executor.controller.rows(Operation)) == 1)
    assert [one.kind for one in executor.controller.rows(Operation)] == ["provision"]
    # What was found stays, as long as `checks` keeps it.
    assert len(executor.controller.rows(NodeCheck)) == 3
