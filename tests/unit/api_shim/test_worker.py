"""The worker: what is recorded is carried out, once, by few runs, whatever goes wrong in between.

Its executor is a stand-in that has the real action plugins work on a simulated fleet.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Node,
    Operation,
    OperationEvent,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from api_shim.executor import Ended, Progress, Run, Tell
from api_shim.service import Service
from api_shim.settings import Settings
from api_shim.worker import Worker
from tests.unit.plugins.plugin_utils.registry import conftest as registry_fixtures
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well
from tests.unit.plugins.plugin_utils.registry.rows import add_instance
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import nothing
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

controller = registry_fixtures.controller

NL, DE, FR = "nl1.example.com", "de1.example.com", "fr1.example.com"
ALICE, BOB = "alice@example.com", "bob@example.com"
ELSEWHERE = json.dumps({"machine": "another", "pid": 1, "started": 1})

#: What a run does instead of playing to its end.
Instead = Callable[[Run, threading.Event], Ended | None]


def as_ever(_run: Run, _cancelled: threading.Event) -> None:
    """Nothing special."""


@dataclass
class Plays:
    """An executor: plays on the simulated fleet, unless `instead` says how the run ended."""

    controller: Controller
    instead: Instead = as_ever
    at: Callable[[str], None] = nothing  # told where a run is
    runs: list[Run] = field(default_factory=list)
    at_work: Counter[tuple[str, str]] = field(default_factory=Counter)
    overlaps: list[tuple[str, str]] = field(default_factory=list)
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:
        """As the port says."""
        places = self._places(run)
        with self.lock:
            self.runs.append(run)
            self.at_work.update(places)
            self.overlaps += [place for place in places if self.at_work[place] > 1]
            self.most = max(self.most, sum(bool(count) for count in self.at_work.values()))
        try:
            tell(Progress("started", "Take the instances down", NL))
            ended = self.instead(run, cancelled)
            if ended is None:
                published = self.play(run)
                ended = Ended("failed" if published["status"] == "error" else "successful", published)
            return ended
        finally:
            with self.lock:
                self.at_work.subtract(places)

    def play(self, run: Run) -> dict[str, Any]:
        """To its end, on a controller of its own."""
        mine = with_drift(Controller(self.controller.registry, self.controller.fleet))
        mine.at = self.at
        return mine.play(run.playbook, check=run.check, operations=list(run.operations))

    def close(self) -> None:
        """Nothing is held."""

    def _places(self, run: Run) -> set[tuple[str, str]]:
        if run.playbook != "disconnect" or run.check:
            return set()
        with self.controller.registry.read() as session:
            names = select(Operation.instance_name).where(Operation.id.in_(run.operations))
            return {
                (run.playbook, self.controller.instance(name).node.name)
                for name in session.scalars(names)
                if name
            }


@pytest.fixture
def executor(controller: Controller) -> Plays:
    return Plays(controller)


@contextmanager
def working(
    executor: Plays, registry: Registry | None = None, token: str | None = None, **more: Any
) -> Iterator[Worker]:
    """A worker that is at work, and stopped in the end."""
    settings = Settings(**{"runs": 4, "lease_seconds": 60, **more})
    worker = Worker(registry or executor.controller.registry, executor, settings)
    if token is not None:
        worker._token = token
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(10)


def served(controller: Controller, *names: str, node: str = NL) -> None:
    for name in names:
        controller.play("provision", instance=name, node=node)


def many(controller: Controller, count: int) -> list[str]:
    """The names of so many customers, on all nodes in turn."""
    with controller.registry.write() as session:
        nodes = session.scalars(select(Node).order_by(Node.name)).all()
        return [add_instance(session, nodes[number % len(nodes)]).name for number in range(count)]


def submit(registry: Registry, kind: str, check: bool = False, **asked: Any) -> str:
    with registry.write() as session:
        return queue.submit(session, kind, asked, "api:billing", check).id


def row(registry: Registry, number: str) -> Operation:
    with registry.read() as session:
        return session.get_one(Operation, number)


def told(registry: Registry, number: str) -> dict[str, Any] | None:
    with registry.read() as session:
        return looks.result_of(session, session.get_one(Operation, number))


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def all_ended(registry: Registry, ids: Sequence[str], state: str = "succeeded") -> Callable[[], bool]:
    def are_ended() -> bool:
        with registry.read() as session:
            query = select(func.count()).where(Operation.id.in_(ids), Operation.state == state)
            return session.scalar(query) == len(ids)

    return are_ended


def die(session: Session, run: Run) -> None:
    """The processes of a run have been killed."""
    session.execute(
        update(Operation)
        .where(Operation.id.in_(run.operations), Operation.state == "running")
        .values(owner=token_of_the_dead())
    )


def until_cancelled(executor: Plays, begun: threading.Event) -> Instead:
    """The first run begins, and does not come to an end by itself."""

    def instead(run: Run, cancelled: threading.Event) -> Ended | None:
        if len(executor.runs) > 1:
            return None
        executor.controller.begin(run.playbook, None, run.check, {"operations": list(run.operations)})
        begun.set()
        assert cancelled.wait(30)
        with executor.controller.registry.write() as session:
            die(session, run)
        return Ended("canceled")

    return instead


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

    def long(_run: Run, _cancelled: threading.Event) -> None:
        mine = row(registry, number).owner
        own(ELSEWHERE)  # as another machine sees it: the lease alone tells that it is at work
        begun.set()
        time.sleep(8)
        with registry.write() as session:
            seen.append(queue.claim(session, process_token(1), timedelta(seconds=60), [], 10))
        own(mine)

    def own(token: str | None) -> None:
        with registry.write() as session:
            session.execute(update(Operation).where(Operation.id == number).values(owner=token))

    executor.instead = long
    with working(executor, lease_seconds=5) as worker:
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


def test_a_look_is_tried_three_times(executor: Plays) -> None:
    registry = executor.controller.registry
    number = submit(registry, "drift", node=NL)
    executor.instead = lambda _run, _cancelled: Ended("error", message="no ansible-runner")
    with working(executor):
        until(all_ended(registry, [number], "failed"), 15)
    assert len(executor.runs) == 3
    assert row(registry, number).error == "no ansible-runner"


@pytest.mark.parametrize("asked", [{"node": NL}, {}])
def test_looks_at_once_make_one_run(executor: Plays, asked: dict[str, str]) -> None:
    """Those that come while the run starts are taken in; those that come while it reads share the next one."""
    registry, ids, later = executor.controller.registry, [], []

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
