"""The worker when something goes wrong: it is stopped, killed, or loses the registry."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Operation,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from api_shim.executor import Ended, Run
from api_shim.service import Service
from api_shim.settings import Settings
from api_shim.worker import Worker
from tests.unit.api_shim import worker_runs
from tests.unit.api_shim.until import until
from tests.unit.api_shim.worker_runs import (
    ALICE,
    BOB,
    ELSEWHERE,
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
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import token_of_the_dead

controller = worker_runs.controller
executor = worker_runs.executor


def test_stopped_in_the_middle_nothing_is_lost(executor: Plays) -> None:
    registry, begun = executor.controller.registry, threading.Event()
    served(executor.controller, ALICE)
    number = submit(registry, "disconnect", instance=ALICE)
    executor.instead = until_cancelled(executor, begun)
    with working(executor) as worker:
        assert begun.wait(30)
        began = time.monotonic()
        worker.stop(0.5)
        assert time.monotonic() - began > 0.4
        assert worker.runs == 0
    waits = row(registry, number)
    assert (waits.state, waits.cancel_requested_by, waits.finished_at) == ("running", None, None)
    late = submit(registry, "provision", instance=BOB)
    time.sleep(0.2)
    assert len(executor.runs) == 1
    with working(executor):
        until(all_ended(registry, [number, late]))
    assert_all_is_well(registry, executor.controller.fleet)


def test_it_says_what_is_wrong_with_it(executor: Plays, monkeypatch: pytest.MonkeyPatch) -> None:
    with working(executor) as worker:
        assert worker.problem() is None
        monkeypatch.setattr("api_shim.worker._STUCK", -1.0)
        assert worker.problem() == "the worker has done nothing for -1 s"
        monkeypatch.undo()
        assert worker.problem() is None
    assert worker.problem() == "the worker stops"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_whose_loop_has_died_is_not_ready(executor: Plays, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_worker: Worker) -> None:
        raise SystemExit

    monkeypatch.setattr(Worker, "_begin_batches", die)
    service = Service(Settings(), executor.controller.registry, executor=executor)
    assert service.worker is not None
    service.worker.start()
    until(lambda: service.ready() == "the worker has stopped")


def test_what_is_at_work_stays_its_own_while_it_stops(executor: Plays) -> None:
    registry, begun = executor.controller.registry, threading.Event()
    served(executor.controller, ALICE)
    number = submit(registry, "disconnect", instance=ALICE)

    seen: list[list[queue.Batch]] = []
    workers: list[Worker] = []

    def long(_run: Run, _cancelled: threading.Event) -> None:
        mine = row(registry, number).owner
        own(ELSEWHERE)  # as another machine sees it: the lease alone tells that it is at work
        begun.set()
        until(lambda: bool(workers) and workers[0].problem() == "the worker stops")
        held = lease()
        until(lambda: lease() > held)
        with registry.write() as session:
            seen.append(queue.claim(session, process_token(1), timedelta(seconds=60), [], 10))
        own(mine)

    def own(token: str | None) -> None:
        with registry.write() as session:
            session.execute(update(Operation).where(Operation.id == number).values(owner=token))

    def lease() -> datetime:
        until_when = row(registry, number).lease_until
        assert until_when is not None
        return until_when

    executor.instead = long
    with working(executor, lease_seconds=5) as worker:
        workers.append(worker)
        assert begun.wait(30)
        worker.stop(60)
    assert seen == [[]]
    assert row(registry, number).state == "succeeded"


def test_what_nobody_can_be_told_of_is_ended_before_others_take_it(
    executor: Plays, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, begun, lost = executor.controller.registry, threading.Event(), threading.Event()
    number = submit(registry, "provision", instance=ALICE, node=NL)

    def away(*_: object) -> None:
        raise NotUsable("away")

    def instead(_run: Run, cancelled: threading.Event) -> Ended | None:
        if lost.is_set():
            return None
        monkeypatch.setattr(queue, "extend", away)
        begun.set()
        assert cancelled.wait(60)
        monkeypatch.undo()
        lost.set()
        return Ended("canceled")

    executor.instead = instead
    with working(executor, lease_seconds=5):
        assert begun.wait(30)
        until(all_ended(registry, [number]))
    assert len(executor.runs) == 2


def test_a_run_that_ends_in_time_is_waited_for(executor: Plays) -> None:
    registry = executor.controller.registry
    number = submit(registry, "provision", instance=ALICE)
    executor.instead = lambda _run, _cancelled: time.sleep(0.5)
    with working(executor) as worker:
        until(lambda: len(executor.runs) == 1)
        worker.stop(20)
        assert row(registry, number).state == "succeeded"


@dataclass(frozen=True)
class Unreliable(Registry):
    """A registry that goes away: so many times before a transaction, or at its end when all is written."""

    before: list[None] = field(default_factory=list)
    after: list[None] = field(default_factory=list)

    @contextmanager
    def write(self, keep: bool = True) -> Iterator[Session]:
        """As the registry's."""
        if self.before:
            self.before.pop()
            raise NotUsable("the registry cannot be used: it is away")
        with super().write(keep) as session:
            yield session
        if self.after:
            self.after.pop()
            raise NotUsable("the registry cannot be used: the connection was lost")


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_registry_goes_away_while_a_run_is_settled(executor: Plays, when: str) -> None:
    registry = Unreliable(executor.controller.registry.engine)
    number = submit(registry, "drift", node=NL)

    def instead(run: Run, _cancelled: threading.Event) -> Ended:
        published = executor.play(run)
        getattr(registry, when).extend([None, None])
        return Ended("successful", published)

    executor.instead = instead
    with working(executor, registry):
        until(all_ended(registry, [number]))
    assert len(executor.runs) == 1
    assert (row(registry, number).result or {})["operation"] == "drift"


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_registry_goes_away_while_operations_are_claimed(executor: Plays, when: str) -> None:
    """What was claimed without the worker's knowledge is not kept from everybody for as long as it lives."""
    registry = Unreliable(executor.controller.registry.engine)
    number = submit(registry, "provision", instance=ALICE)
    getattr(registry, when).append(None)
    with working(executor, registry):
        until(all_ended(registry, [number]), 10)
    assert len(executor.runs) == 1
    assert_all_is_well(registry, executor.controller.fleet)


def test_two_workers_share_the_work(executor: Plays) -> None:
    registry = executor.controller.registry
    other = Plays(executor.controller)
    ids = [submit(registry, "disconnect", instance=name) for name in many(executor.controller, 60)]
    for one in (executor, other):
        one.instead = lambda _run, _cancelled: time.sleep(0.2)
    with subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL) as replica:
        try:
            with working(executor, runs=1), working(other, runs=1, token=process_token(replica.pid)):
                until(all_ended(registry, ids), 60)
        finally:
            replica.kill()
    done = Counter(number for one in (executor, other) for run in one.runs for number in run.operations)
    assert done == Counter(ids)
    assert executor.runs
    assert other.runs
    assert {one.attempts for one in executor.controller.rows(Operation)} == {1}


@pytest.mark.parametrize("state", ["pending", "running"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_what_a_dead_worker_has_held_is_taken_over(executor: Plays, state: str, where: str) -> None:
    registry = executor.controller.registry
    served(executor.controller, ALICE)
    number = submit(registry, "disconnect", instance=ALICE)
    with registry.write() as session:
        found = session.get_one(Operation, number)
        found.state = state
        found.owner = token_of_the_dead() if where == "here" else ELSEWHERE
        found.lease_until = now() + timedelta(seconds=60 if where == "here" else 2)
    # A run takes its time to begin; meanwhile the worker tells that it is alive.
    executor.instead = lambda _run, _cancelled: time.sleep(0.3)
    with working(executor):
        if where == "elsewhere":
            time.sleep(1)
            assert executor.runs == []
        until(all_ended(registry, [number]), 10)
    assert_all_is_well(registry, executor.controller.fleet)
