"""Carries out the operations that are recorded: claims those of one kind on one node together, and runs a playbook.

Each replica has one worker. What it is at work on is its own for the length of its lease, which it extends; when it
dies, another one takes over. It waits for nothing but runs: what is to be tried again has its time in the registry, and
so has the next look at the fleet.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    IdempotencyKey,
    Operation,
    OperationEvent,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from api_shim.executor import Ended, Executor, Progress, Run
from api_shim.schedule import Schedule
from api_shim.settings import Settings

#: Seconds between two looks for what another replica has recorded, what is to be tried again, and who wants to cancel.
_POLL = 1.0
#: Seconds for which progress is gathered before it is written.
_GATHER = 0.3
_CLEANING = 3600.0  # seconds
#: Seconds without a whole turn of the loop: more than a writer waits for the registry.
_STUCK = 60.0
_KEPT = timedelta(days=1)

log = structlog.stdlib.get_logger("api_shim")


@dataclass
class _Active:
    """A batch at work."""

    batch: queue.Batch
    held_since: float  # when the registry was last told, by the monotonic clock
    thread: threading.Thread | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Claims and carries out operations in threads of its own.

    `notify` is called when operations may have ended; `observe` with the playbook, status and seconds of each run.
    """

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        settings: Settings,
        notify: Callable[[], None] = lambda: None,
        observe: Callable[[str, str, float], None] = lambda _playbook, _status, _seconds: None,
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._settings = settings
        self._notify = notify
        self._observe = observe
        self._schedule = Schedule(registry, settings.drift_interval)
        self._token = process_token(os.getpid())
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._active: dict[tuple[str, str | None], _Active] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._cleaned = 0.0
        self._turned = time.monotonic()
        # Whether more may be claimed than is at work: the registry went away in the middle.
        self._unsure = False
        # By place, how many runs in a row have left something undone: such as one that could not be started.
        self._failures: dict[tuple[str, str | None], int] = {}
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Begin with what is there, such as what a server that was killed has left."""
        self._thread.start()

    def wake(self) -> None:
        """Look now: something was recorded, or is to be cancelled."""
        self._woken.set()

    def stop(self, patience: float) -> None:
        """Begin nothing more; wait for the runs for so many seconds, then end them. What they leave stays recorded."""
        self._stopping.set()
        self._woken.set()
        self._thread.join()
        self._wait_for_runs(time.monotonic() + patience)
        for active in self._at_work():
            active.cancelled.set()
        self._wait_for_runs(math.inf)

    def problem(self) -> str | None:
        """Why it carries nothing out; None when it is at work, or about to be."""
        if self._stopping.is_set():
            return "the worker stops"
        if not self._thread.is_alive():
            return "the worker has stopped"
        if time.monotonic() - self._turned > _STUCK:
            return f"the worker has done nothing for {_STUCK:.0f} s"
        return None

    @property
    def runs(self) -> int:
        """How many runs are at work."""
        return len(self._active)

    # -- the loop

    def _loop(self) -> None:
        while not self._stopping.is_set():
            # Whatever is recorded from here on wakes it again.
            self._woken.clear()
            began = time.monotonic()
            try:
                self._schedule.turn()
                self._begin_batches()
                self._look_after_batches()
                self._clean()
                self._turned = time.monotonic()
            except Exception:
                # The registry may be away; nothing is lost, and the next turn tries again.
                log.exception("the worker's turn failed")
                self._give_up_what_is_lost()
                self._stopping.wait(_POLL)
            # A turn holds writers up, and takes the longer the more there is to do: they get as long as it took.
            self._stopping.wait(min(_POLL, time.monotonic() - began))
            self._woken.wait(_POLL)

    def _begin_batches(self) -> None:
        places = set(self._active)
        free = self._settings.runs - len(places)
        if free <= 0:
            return
        began = time.monotonic()
        unsure, self._unsure = self._unsure, True
        with self._registry.write() as session:
            if unsure:
                at_work = [number for active in self._at_work() for number in active.batch.ids]
                queue.give_back(session, self._token, at_work)
            batches = queue.claim(session, self._token, self._lease, places, free)
        self._unsure = False
        for batch in batches:
            active = _Active(batch, began)
            active.thread = threading.Thread(
                target=self._carry_out, args=(active,), name=f"run of {batch.kind}", daemon=True
            )
            with self._lock:
                self._active[batch.place] = active
            active.thread.start()

    def _look_after_batches(self) -> None:
        at_work = self._at_work()
        ids = [number for active in at_work for number in active.batch.ids]
        if not ids:
            return
        self._extend(at_work)
        with self._registry.read() as session:
            unwanted = set(
                session.scalars(
                    select(Operation.id).where(
                        Operation.id.in_(ids), Operation.cancel_requested_by.is_not(None)
                    )
                )
            )
        for active in at_work:
            if unwanted.intersection(active.batch.ids):
                active.cancelled.set()

    def _extend(self, at_work: Sequence[_Active]) -> None:
        """Tell that what is at work is held, every third of a lease."""
        moment = time.monotonic()
        if (
            at_work
            and moment - min(active.held_since for active in at_work) > self._settings.lease_seconds / 3
        ):
            with self._registry.write() as session:
                queue.extend(session, self._lease, [each for active in at_work for each in active.batch.ids])
            for active in at_work:
                active.held_since = moment

    def _give_up_what_is_lost(self) -> None:
        """End the runs that nobody could be told of for so long that others may take their operations soon."""
        latest = time.monotonic() - self._settings.lease_seconds * 2 / 3
        for active in self._at_work():
            if active.held_since < latest and not active.cancelled.is_set():
                log.warning("a run is ended: its lease cannot be extended", playbook=active.batch.kind)
                active.cancelled.set()

    def _wait_for_runs(self, deadline: float) -> None:
        """Wait until all runs have ended, or until the deadline; meanwhile they stay this worker's."""
        while (at_work := self._at_work()) and time.monotonic() < deadline:
            _join(at_work[0], min(_POLL, max(0.0, deadline - time.monotonic())))
            try:
                self._extend(self._at_work())
            except Exception:
                log.exception("the runs that are at work could not be told of")
                self._give_up_what_is_lost()

    def _clean(self) -> None:
        """Forget what nobody asks for any more. The audit stays."""
        if self._cleaned and time.monotonic() - self._cleaned < _CLEANING:
            return
        before = now() - _KEPT
        with self._registry.write() as session:
            queue.end_abandoned(session)
            session.execute(delete(OperationEvent).where(OperationEvent.at < before))
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < before))
            session.execute(
                delete(Operation).where(
                    Operation.finished_at < before,
                    # Plans and looks, and what was done for these on single nodes.
                    Operation.instance_name.is_(None),
                    or_(Operation.node_id.is_(None), Operation.kind == "drift"),
                )
            )
        self._cleaned = time.monotonic()

    def _at_work(self) -> list[_Active]:
        with self._lock:
            return list(self._active.values())

    # -- one batch, in its thread

    def _carry_out(self, active: _Active) -> None:
        batch = active.batch
        run = Run(new_id(), batch.kind, batch.ids, check=batch.check)
        began = time.monotonic()
        teller = _Teller(self._registry, batch.ids)
        try:
            ended = self._execute(run, teller, active)
            seconds = time.monotonic() - began
            self._observe(batch.kind, ended.status, seconds)
            log.info(
                "run ended",
                run=run.id,
                playbook=batch.kind,
                node=batch.node,
                operations=len(batch.ids),
                status=ended.status,
                seconds=round(seconds, 3),
                problem=ended.message,
            )
            teller.flush()
            self._settle(active, ended)
        except Exception:
            log.exception("a run was not settled; it is taken up again when its lease has run out")
        finally:
            with self._lock:
                del self._active[batch.place]
            self._notify()
            self.wake()

    def _execute(self, run: Run, teller: _Teller, active: _Active) -> Ended:
        try:
            return self._executor.execute(run, teller.tell, active.cancelled)
        except Exception as error:
            # It should not; what it had would be this worker's for as long as it lives.
            log.exception("the executor has failed")
            return Ended("error", message=f"the executor has failed: {type(error).__name__}")

    def _settle(self, active: _Active, ended: Ended) -> None:
        """Write down what became of a run, again and again while the registry is away."""
        while True:
            try:
                with self._registry.write() as session:
                    self._write_down(session, active, ended)
                return
            except Exception:
                if self._stopping.wait(_POLL):
                    raise
                log.exception("what became of a run could not be written down; it is tried again")

    def _write_down(self, session: Session, active: _Active, ended: Ended) -> None:
        batch = active.batch
        ids = [*batch.ids, *looks.joined(session, batch.ids)] if batch.look else batch.ids
        rows = session.scalars(select(Operation).where(Operation.id.in_(ids))).all()
        nodes: dict[str, str] = {}
        for operation in rows:
            actor = operation.cancel_requested_by
            if actor is not None and operation.state in queue.UNFINISHED:
                nodes.update(dict.fromkeys(queue.end_canceled(session, operation, actor), actor))
        for number, actor in nodes.items():
            queue.reconcile(session, [number], actor)
        if batch.look:
            self._end_looks(session, batch, ended)
        else:
            failures = self._failures.pop(batch.place, 0)
            pause = timedelta(seconds=0 if active.cancelled.is_set() else min(2.0**failures, 300.0))
            if queue.release(session, self._token, batch.ids, pause) and not active.cancelled.is_set():
                self._failures[batch.place] = min(failures + 1, 10)

    def _end_looks(self, session: Session, batch: queue.Batch, ended: Ended) -> None:
        pause = None if ended.status == "failed" else timedelta(seconds=1)
        looks.settle(session, batch.ids, ended.published, ended.message or "the playbook failed", pause)


@dataclass
class _Teller:
    """Writes the progress of a run for whoever follows its operations."""

    registry: Registry
    ids: Sequence[str]
    waiting: list[Progress] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    def tell(self, progress: Progress) -> None:
        """Take note; it is written with others."""
        self.waiting.append(progress)
        if time.monotonic() - self.written > _GATHER:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. Nothing depends on it."""
        steps, self.waiting = self.waiting, []
        self.written = time.monotonic()
        if not steps:
            return
        try:
            with self.registry.write() as session:
                for one in steps:
                    data = {"step": one.step, "task": one.task, "node": one.node}
                    queue.tell(session, self.ids, "progress", data)
        except Exception:
            log.warning("the progress of a run could not be written down", exc_info=True)


def _join(active: _Active, seconds: float | None) -> None:
    if active.thread is not None:
        active.thread.join(seconds)
