# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations: recorded and claimed in one transaction, worked off node by node, ended with a result and an audit row.

    begin   what is asked becomes the desired state, and rows that this run holds
    jobs    what a stage has to do on one node
    settle  how it went there
    finish  the results

What a run leaves undone stays: the rows as pending, what is to be taken down in teardown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    node_operations,
    owner,
    stages,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    unknown_instances,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
    sealed,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    MOST_CHARACTERS,
    Result,
    fit,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
    Job,
    Outcome,
)


class Kind(Protocol):
    """What there is to each kind of operation; one module each."""

    def record(self, session: Session, operation: Operation) -> None:
        """Turn what is asked into desired state, and plan the stages."""

    def jobs(self, session: Session, operations: list[Operation], stage: str, node: Node) -> list[Job]:
        """What these operations want of a node in a stage."""

    def settle(
        self, session: Session, operation: Operation, stage: str, node: Node, outcome: Outcome
    ) -> None:
        """Note how it went on a node."""

    def result(self, session: Session, operation: Operation) -> Result:
        """What to tell of it in the end."""


def kind_of(name: str) -> Kind:
    """The module of a kind of operation. Only what a run needs is imported: each import is paid at every start."""
    return cast("Kind", import_module(f"{__package__}.{name}"))


@dataclass(frozen=True)
class Run:
    """One execution of a playbook. `hosts` are the nodes that it may touch (--limit). `actor` is empty when each of its
    operations has its own, who recorded it."""

    id: str
    owner: str
    actor: str
    hosts: frozenset[str]


def begin(session: Session, kind: str, requests: Sequence[dict[str, Any]], run: Run) -> list[Operation]:
    """Record and claim one operation per request, all or none.

    Raises NotFound, Busy, Conflict, Full or Invalid, and then nothing of it is to be kept.
    """
    if kind in node_operations.KINDS:
        return node_operations.begin(session, kind, requests, run)
    _require_known(session, kind, requests)
    return [_take_up(session, kind, sealed(request), run) for request in requests]


def take_up(session: Session, recorded: Operation, run: Run) -> list[Operation]:
    """Claim an operation that is recorded already. Raises as `begin` does."""
    if recorded.kind in node_operations.KINDS:
        return node_operations.begin(session, recorded.kind, [recorded.request], run, recorded)
    _require_known(session, recorded.kind, [recorded.request])
    return [_take_up(session, recorded.kind, recorded.request, run, recorded)]


def _require_known(session: Session, kind: str, requests: Sequence[Mapping[str, Any]]) -> None:
    node_operations.require_free(session, [request["instance"] for request in requests])
    if kind in ("disconnect", "transfer"):
        unknown = unknown_instances(session, [request["instance"] for request in requests])
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise NotFound(f"no instance is called {', '.join(unknown[:5])}{more}")


def _take_up(
    session: Session, kind: str, request: dict[str, Any], run: Run, recorded: Operation | None = None
) -> Operation:
    operation = _claim(session, kind, request, run, recorded)
    stages.forget(operation)
    kind_of(kind).record(session, operation)
    if kind == "transfer":
        _require_hosts(operation, run)
    session.flush()
    return operation


def of_run(session: Session, run_id: str) -> list[Operation]:
    """The operations that a run holds."""
    return list(
        session.scalars(
            select(Operation)
            .where(Operation.run_id == run_id, Operation.state == "running")
            .order_by(Operation.created_at, Operation.id)
        )
    )


def stage_nodes(operations: Sequence[Operation]) -> dict[str, list[str]]:
    """The names of the nodes of each stage."""
    found: dict[str, set[str]] = {}
    for operation in operations:
        for stage in (operation.progress or {}).get("stages", {}):
            found.setdefault(stage, set()).update(stages.nodes(operation, stage))
    return {stage: sorted(names) for stage, names in found.items()}


def jobs(session: Session, operations: Sequence[Operation], stage: str, node: Node) -> list[Job]:
    """What a stage has to do on a node."""
    concerned = [
        operation
        for operation in operations
        if node.id in stages.outcomes(operation, stage) and not stages.held_up(operation, stage)
    ]
    found: list[Job] = []
    for kind in dict.fromkeys(operation.kind for operation in concerned):
        found += kind_of(kind).jobs(
            session, [operation for operation in concerned if operation.kind == kind], stage, node
        )
    return found


def settle(
    session: Session, operations: Sequence[Operation], stage: str, node: Node, outcomes: Mapping[str, Outcome]
) -> None:
    """Note how a stage went on a node, by operation id. Operations without a job there are done there."""
    for operation in operations:
        if node.id not in stages.outcomes(operation, stage):
            continue
        if stages.held_up(operation, stage):
            continue
        outcome = outcomes.get(operation.id, Outcome(stages.DONE))
        stages.set_outcome(operation, stage, node, outcome)
        kind_of(operation.kind).settle(session, operation, stage, node, outcome)
        operation.lease_until = owner.lease()
    if any(outcome.state != stages.UNREACHABLE for outcome in outcomes.values()):
        node.last_seen = now()


def undo(
    session: Session,
    operations: Sequence[Operation],
    stage: str,
    node: Node,
    outcomes: Mapping[str, Outcome],
) -> list[Job]:
    """What is to be taken down again on a node where a stage failed."""
    found: list[Job] = []
    for operation in operations:
        outcome = outcomes.get(operation.id)
        if operation.kind == "transfer" and outcome is not None and outcome.state == stages.FAILED:
            found += _transfer().undo(session, operation, stage, node)
    return found


def settle_undo(session: Session, node: Node, outcomes: Mapping[str, Outcome]) -> None:
    """Note how that went, by operation id."""
    for number, outcome in outcomes.items():
        _transfer().settle_undo(session, session.get_one(Operation, number), node, outcome)


def _transfer() -> Any:
    return import_module(f"{__package__}.transfer")


def finish(session: Session, operations: Sequence[Operation], run: Run) -> list[dict[str, Any]]:
    """End the operations of a run; returns their results, which their rows keep."""
    found = []
    # All at once, and not one by one; the session knows them as long as they are held here.
    nodes = node_operations.nodes_of(session, [one for one in operations if one.node_id is not None])
    for operation in operations:
        _settle_unknown(session, operation, run)
        found.append(kind_of(operation.kind).result(session, operation))
    del nodes
    return [
        endings.end(session, operation, ended, run.actor or operation.requested_by)
        for operation, ended in zip(operations, _fitted(found), strict=True)
    ]


def _fitted(found: list[Result]) -> list[Result]:
    """The results with lists of peers that are short enough to be published together."""
    with_peers = [one.details for one in found if "peers" in one.details]
    fitted = iter(fit(with_peers, MOST_CHARACTERS, ("peers",)))
    return [replace(one, details=next(fitted)) if "peers" in one.details else one for one in found]


def _settle_unknown(session: Session, operation: Operation, run: Run) -> None:
    """Where this run has been on a node, or should have been, and nothing is written down of how it went: the registry
    could not be written, or the step failed by itself. It may be done or not, and is to be looked at."""
    for stage in list((operation.progress or {}).get("stages", {})):
        if stages.held_up(operation, stage):
            continue
        for number, found in stages.outcomes(operation, stage).items():
            if found["state"] == stages.WAITING and found["node"] in run.hosts:
                node = session.get_one(Node, number)
                outcome = Outcome(stages.FAILED, error="how it went there could not be written down")
                stages.set_outcome(operation, stage, node, outcome)
                kind_of(operation.kind).settle(session, operation, stage, node, outcome)


def published(held: Sequence[Operation], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a kind publishes of all operations of a run together, besides or instead of their results."""
    if not held or held[0].kind != "drift":
        return {}
    found: dict[str, Any] = import_module(f"{__package__}.fleet_report").published(held, results)
    return found


def _claim(
    session: Session, kind: str, request: dict[str, Any], run: Run, recorded: Operation | None
) -> Operation:
    name = request["instance"]
    resumed = recorded
    for other in session.scalars(
        select(Operation)
        .where(Operation.instance_name == name, Operation.state.in_(("running", "pending")))
        .order_by(Operation.created_at)
    ):
        if other is recorded:
            continue
        if other.state == "pending" and other.attempts == 0:
            if recorded is not None and _is_before(recorded, other):
                continue
            raise Busy(
                f"{name} is busy: {other.kind} {other.id} is waiting to be carried out; try again later"
            )
        if other.state == "running" and owner.is_alive(other) and other.run_id != run.id:
            since = other.started_at.strftime("%H:%M:%S UTC") if other.started_at else "just now"
            raise Busy(
                f"{name} is busy: {other.kind} {other.id} is at work on it since {since}; try again later"
            )
        if other.kind == kind and other.request.get("node") == request.get("node") and resumed is None:
            resumed = other
            continue
        endings.cancel(session, other, f"superseded by a later {kind}", run.actor or other.requested_by)
    session.flush()
    operation = resumed or Operation(id=new_id(), kind=kind, instance_name=name, progress={})
    operation.request = request
    operation.state = "running"
    operation.run_id = run.id
    operation.owner = run.owner
    operation.lease_until = owner.lease()
    operation.attempts = (operation.attempts or 0) + 1
    operation.requested_by = operation.requested_by or run.actor
    operation.started_at = now()
    operation.not_before = None
    session.add(operation)
    session.flush()
    return operation


def _is_before(one: Operation, other: Operation) -> bool:
    return (one.created_at, one.id) < (other.created_at, other.id)


def _require_hosts(operation: Operation, run: Run) -> None:
    """A transfer that may not touch one of its nodes would stop half-way."""
    missing = [
        found["node"] for found in stages.outcomes(operation).values() if found["node"] not in run.hosts
    ]
    if missing:
        raise Conflict(
            f"a transfer needs both nodes, and {', '.join(missing)} is left out (--limit, or not in the inventory)"
        )
