# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at nodes that are asked for by many at once, and shared: each caller has a row of its own, and one run serves
them all.

A look tells how a node is after it was asked for: who has just repaired something must not be shown what was before. So
a run serves the looks that are recorded when it begins, which is before it reads the first node. Those that come later
wait, and the next run serves all of them.

    claim (queue)  a worker takes all looks at the same node, or at the fleet, together
    begin          its run takes in those that have come since; of a look at the fleet, those at its nodes, too
    answer         a look at a node need not wait for all the others that are looked at along with it
    end            all the others, when the run has ended
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    fleet_report,
    operations,
    owner,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, Operation, now
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import Result

#: Served by one run; more wait for the next one.
MOST_TOGETHER = 200
MOST_TRIES = 3
#: For whether the one that is at work has ended.
_LOOK_AGAIN = timedelta(seconds=5)
#: In a result: the look that has it.
_SAME = "same_as"
_WAITING = (
    Operation.kind == "drift",
    Operation.state == "pending",
    Operation.node_id.is_(None),
    Operation.instance_name.is_(None),
)
_OF_FLEET = (
    Operation.kind == "drift",
    Operation.node_id.is_(None),
    Operation.instance_name.is_(None),
    Operation.request["node"].as_string().is_(None),
    Operation.request["check"].as_boolean().is_(None),
)


def begin(session: Session, begun: Sequence[Operation], run: operations.Run) -> list[Operation]:
    """Let a run take up what it is to do for looks at the same node, or at the fleet, and for those that have come
    since. Raises as `operations.begin` does."""
    waiting = [one for one in begun if one.state == "pending"] or begun
    run = replace(run, actor=waiting[0].requested_by)
    wanted = {one.request.get("node"): one for one in waiting}
    parts = operations.begin(session, "drift", [dict(one.request) for one in wanted.values()], run)
    served = _join(session, waiting, run.id, {str(part.request["node"]) for part in parts})
    # Whoever waits the shortest is answered in time, and all others with them.
    limits = [one.request["timeout"] for one in served if "timeout" in one.request]
    if limits:
        for part in parts:
            part.request = {**part.request, "timeout": min(limits)}
    return parts


def _join(
    session: Session, begun: Sequence[Operation], run_id: str, nodes: Collection[str]
) -> list[Operation]:
    """Let a run that is about to look at these `nodes`, by name, serve what it was begun for, and all that waits for
    the same: nothing of it has been read yet. Returns what it serves."""
    first = begun[0]
    wanted = {str(first.request["node"])} if first.request.get("node") is not None else {None, *nodes}
    # Whoever begins it once more takes along what had joined it.
    before = {one.run_id for one in begun} - {None}
    joined: list[Operation] = []
    if first.cancel_requested_by is None and first.state == "pending":
        waiting = session.scalars(
            select(Operation).where(*_WAITING).order_by(Operation.created_at, Operation.id)
        )
        found = [
            one
            for one in waiting
            if one.request.get("node") in wanted
            and not one.request.get("check")
            and one.cancel_requested_by is None
            and (one.run_id in before or not owner.is_alive(one))
        ]
        joined = found[: max(0, MOST_TOGETHER - len(begun))]
        for one in joined:
            one.owner, one.lease_until, one.not_before = first.owner, first.lease_until, None
            one.run_id = run_id
    for one in begun:
        one.run_id = run_id
    session.flush()
    return [*begun, *joined]


def joined(session: Session, ids: Sequence[str]) -> list[str]:
    """The ids of the looks that wait for the run that serves these, and are not among them."""
    runs = select(Operation.run_id).where(Operation.id.in_(ids), Operation.run_id.is_not(None))
    return list(
        session.scalars(
            select(Operation.id).where(*_WAITING, Operation.run_id.in_(runs), Operation.id.not_in(ids))
        )
    )


def is_shared(session: Session, operation: Operation) -> bool:
    """Whether somebody else waits for the run that serves a look."""
    others = session.scalars(
        select(Operation).where(
            *_WAITING,
            Operation.id != operation.id,
            Operation.owner == operation.owner,
            Operation.cancel_requested_by.is_(None),
        )
    )
    node = operation.request.get("node")
    return any(
        one.run_id == operation.run_id
        if operation.run_id is not None
        else one.request.get("node") == node and not one.request.get("check")
        for one in others
    )


def waited_for(session: Session, runs: Collection[str]) -> set[str]:
    """The names of the nodes that looks at them alone wait for, which these runs serve."""
    if not runs:
        return set()
    waiting = session.scalars(select(Operation).where(*_WAITING, Operation.run_id.in_(runs)))
    return {str(one.request["node"]) for one in waiting if one.request.get("node") is not None}


def answer(session: Session, part: Operation, ended: Result) -> None:
    """End the looks at one node that a look at the fleet serves: `part` is what it does on that node, and `ended` how
    that ended. They need not wait for the other nodes."""
    published = {
        "operation": "drift",
        "status": ended.status,
        "changed": False,
        "operations": [endings.told(part, ended)],
    }
    waiting = session.scalars(select(Operation).where(*_WAITING, Operation.run_id == part.run_id))
    rows = [one for one in waiting if one.request.get("node") == part.request["node"]]
    _end_all(rows, published, "")
    for one in rows:
        _audit(session, one, published)


def settle(
    session: Session,
    ids: Sequence[str],
    published: dict[str, Any] | None,
    problem: str,
    pause: timedelta | None,
) -> None:
    """End these looks, and those that have joined them, with what their run has published. Without that, and with a
    pause, they are tried again after it, but not for ever."""
    first = session.get_one(Operation, ids[0])
    rows = session.scalars(
        select(Operation)
        .where(Operation.id.in_([*ids, *joined(session, ids)]), Operation.state == "pending")
        .order_by(Operation.created_at, Operation.id)
    )
    if published is not None and "data" in published and first.run_id is not None:
        # A run publishes what a runner can transport. In the rows is all of it.
        report = fleet_report.of_run(session, first.run_id)
        published = {**published, "data": report or published["data"]}
    ended = []
    for one in rows:
        # Of a look at the fleet, the nodes have answered those that were only about them; or the next run does.
        others = one.request.get("node") != first.request.get("node")
        again = published is None and pause is not None and one.attempts + 1 < MOST_TRIES
        if others or again:
            one.attempts += 1
            one.owner = one.lease_until = one.run_id = None
            one.not_before = now() + (pause or timedelta(0))
        else:
            ended.append(one)
    _end_all(ended, published, problem)
    if first.kind == "drift" and not first.request.get("check"):
        _audit_all(session, ended, published)


def result_of(session: Session, look: Operation) -> dict[str, Any] | None:
    """What came of a look, or of any other operation."""
    result: dict[str, Any] | None = look.result
    if result is None or _SAME not in result:
        return result
    other = session.get(Operation, result[_SAME])
    if other is None or other.result is None:
        return {
            "status": "error",
            "code": 500,
            "message": "What was found is no longer kept",
            "operations": [],
        }
    return dict(other.result)


def _end_all(looks: Sequence[Operation], published: dict[str, Any] | None, problem: str) -> None:
    """End looks that share a run. The first one keeps what that has published, and the others refer to it; all of them
    are forgotten at the same time."""
    moment = now()
    for one in looks:
        end(one, published, problem)
        one.finished_at = moment
        if one is not looks[0] and published is not None:
            one.result = {
                "operation": one.kind,
                "status": str(published.get("status", "")),
                _SAME: looks[0].id,
            }


def end(operation: Operation, published: dict[str, Any] | None, problem: str) -> None:
    """End a look with what its run has published."""
    if operation.state not in ("pending", "running"):
        return
    ended = published or {"status": "error", "code": 500, "message": problem, "operations": []}
    # A report on the fleet was made, whatever it says of the nodes.
    failed = ended.get("status") == "error" and "data" not in ended
    operation.result = ended
    operation.state = "failed" if failed else "succeeded"
    operation.error = str(ended.get("message") or problem) if failed else None
    operation.finished_at = now()
    operation.owner = operation.lease_until = operation.not_before = None


def due_in(session: Session, interval: timedelta) -> timedelta:
    """How long it is until a look at the fleet is due: an interval after the last one was asked for, whoever did, and
    not before that has ended. Nothing, or less, when it is due now."""
    if (
        session.scalar(select(Operation.id).where(*_OF_FLEET, Operation.state == "pending").limit(1))
        is not None
    ):
        return min(interval, _LOOK_AGAIN)
    if session.scalar(select(Node.id).where(Node.enabled.is_(True)).limit(1)) is None:
        return interval
    last = session.scalar(select(func.max(Operation.created_at)).where(*_OF_FLEET))
    return timedelta(0) if last is None else min(last + interval - now(), interval)


def last_of_fleet(session: Session) -> datetime | None:
    """When a look at the fleet last ended well, of those that are not forgotten yet."""
    return session.scalar(
        select(func.max(Operation.finished_at)).where(*_OF_FLEET, Operation.state == "succeeded")
    )


def _audit_all(session: Session, looks: Sequence[Operation], published: dict[str, Any] | None) -> None:
    """What a run did is audited as that of who asked for it first; this is for all others."""
    parts = (published or {}).get("operations") or [{}]
    part = session.get(Operation, parts[0].get("operation_id") or "")
    audited = None if part is None else part.requested_by
    for one in looks:
        if one.requested_by == audited:
            audited = None
        else:
            _audit(session, one, published or one.result or {})


def _audit(session: Session, look: Operation, result: Mapping[str, Any]) -> None:
    one = result if "message" in result else next(iter(result.get("operations", ())), {})
    told = {"message": str(one.get("message", "")), "code": int(one.get("code", 200))}
    endings.audit(session, look, str(result.get("status", "")), look.requested_by, told)
