"""A worker on a simulated fleet. Its executor is a stand-in that has the real action plugins work there."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
)
from api_shim.executor import Ended, Progress, Run, Tell
from api_shim.settings import Settings
from api_shim.worker import Worker
from tests.unit.plugins.plugin_utils.registry import conftest as registry_fixtures
from tests.unit.plugins.plugin_utils.registry.rows import add_instance
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import nothing
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

controller = registry_fixtures.controller

NL, DE = "nl1.example.com", "de1.example.com"
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
