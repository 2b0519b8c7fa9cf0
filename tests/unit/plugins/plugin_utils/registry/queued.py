"""A fleet of three customers, and what the tests of the queue do with its operations."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Operation,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry.consistency import problems
from tests.unit.plugins.plugin_utils.registry.interrupted_runs import THOROUGH
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, CAROL, DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back

LEASE = timedelta(seconds=60)
ELSEWHERE = '{"machine": "another", "pid": 1, "started": 1}'
WORKER = process_token(os.getpid())
#: One of each kind, of those that the fleet below makes sense of.
ASKED: dict[str, dict[str, Any]] = {
    "provision": {"instance": "new@example.com", "node": NL, "peers": [{"name": "phone"}]},
    "disconnect": {"instance": ALICE},
    "transfer": {"instance": ALICE, "node": DE},
    "remove": {"instance": ALICE},
}


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice and Bob are on nl1, Carol is on de1."""
    controller.play("provision", instances=[ALICE, BOB], node=NL)
    controller.play("provision", instance=CAROL, node=DE)
    controller.fleet.calls.clear()
    return controller


def submit(
    controller: Controller, kind: str, check: bool = False, actor: str = "api:billing", **asked: Any
) -> str:
    with controller.registry.write() as session:
        return queue.submit(session, kind, asked, actor, check).id


def claim(
    controller: Controller, places: Iterable[Any] = (), most: int = 10, worker: str = WORKER
) -> list[queue.Batch]:
    with controller.registry.write() as session:
        return queue.claim(session, worker, LEASE, set(places), most)


def release(controller: Controller, ids: Iterable[str], pause: float = 0) -> int:
    with controller.registry.write() as session:
        return queue.release(session, WORKER, list(ids), timedelta(seconds=pause))


def change(controller: Controller, number: str, **values: Any) -> None:
    with controller.registry.write() as session:
        session.execute(update(Operation).where(Operation.id == number).values(**values))


def row(controller: Controller, number: str) -> Operation:
    with controller.registry.read() as session:
        return session.get_one(Operation, number)


def audited(controller: Controller, number: str) -> list[tuple[str, str]]:
    """Who did it and how it went, in the order of the audit."""
    entries = [one for one in controller.rows(AuditEntry) if one.operation_id == number]
    return [(one.actor, one.result) for one in sorted(entries, key=lambda one: one.id)]


def taken(batches: Iterable[queue.Batch]) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(one.kind, one.node, one.ids) for one in batches]


def each_kill(controller: Controller, kind: str, *ids: str) -> Iterator[int]:
    """All is as it was, these operations are claimed, their run is killed at its next point, and they are given back;
    the last time, it comes to its end. Yields the number of the point. With PostgreSQL, some of them are enough: the
    steps are the same."""
    nodes = pickle.dumps(controller.fleet)
    keep(controller.registry, "before")
    point, killed = 0, True
    while killed:
        point += 1 if THOROUGH or controller.registry.engine.dialect.name == "sqlite" else 3
        put_back(controller.registry, "before")
        controller.fleet = pickle.loads(nodes)  # noqa: S301
        (batch,) = claim(controller)
        assert batch.ids == ids
        killed = controller.killed(point, kind, operations=list(ids))
        assert problems(controller.registry, controller.fleet) == [], point
        release(controller, ids)
        yield point
    assert point > 6
