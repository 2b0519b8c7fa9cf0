# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of looks at nodes and of reconciles: one row for each that ended, and of each node the last ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    NodeCheck,
    Operation,
    now,
)

#: How many of each node are kept.
VARIABLE = "VPNFLEET_CHECKS_KEPT"
KEPT = 1000
OK, UNREACHABLE, FAILED = "ok", "unreachable", "failed"
#: The kinds of issues, as the columns and the reports call them with `_count` behind.
COUNTED = ("missing", "mismatched", "unknown", "interface")
_STATES = {stages.DONE: OK, stages.UNREACHABLE: UNREACHABLE}
_LONGEST_ERROR = 1000
#: A statement of SQLite's may be of so many conditions, and twice as many.
_CHUNK = 200


def note(
    session: Session,
    operation: Operation,
    node: Node,
    outcome: stages.Outcome,
    summary: Mapping[str, int] | None,
) -> None:
    """Write down how a look or a reconcile of a node ended. `summary` has what differs, as reports have it; None when
    that is not known."""
    note_all(session, [(operation, node, outcome, summary)])


def note_all(
    session: Session,
    ended: Iterable[tuple[Operation, Node, stages.Outcome, Mapping[str, int] | None]],
) -> None:
    """The same of many nodes, in a few statements for all of them."""
    rows = [_row(operation, node, outcome, summary) for operation, node, outcome, summary in ended]
    session.add_all(rows)
    session.flush()
    _forget_old(session, [row.node_id for row in rows])


def _row(
    operation: Operation, node: Node, outcome: stages.Outcome, summary: Mapping[str, int] | None
) -> NodeCheck:
    state = _STATES.get(outcome.state, FAILED)
    known = summary if state == OK and summary is not None else {}
    numbers = {f"{name}_count": known.get(f"{name}_count") for name in COUNTED}
    moment = now()
    return NodeCheck(
        node_id=node.id,
        operation_id=operation.id,
        kind=operation.kind,
        at=moment,
        state=state,
        error=outcome.error[:_LONGEST_ERROR] if outcome.error and state != OK else None,
        has_drift=any(numbers.values()) if known else None,
        milliseconds=None
        if operation.started_at is None
        else max(0, round((moment - operation.started_at).total_seconds() * 1000)),
        **numbers,
    )


def latest(session: Session, nodes: Sequence[str] | None = None) -> dict[str, NodeCheck]:
    """By the ids of nodes, the last check of each; without `nodes`, of all. One look into the index for each node."""
    last = (
        select(func.max(NodeCheck.id)).where(NodeCheck.node_id == Node.id).correlate(Node).scalar_subquery()
    )
    wanted = select(NodeCheck).join(Node, NodeCheck.id == last)
    if nodes is not None:
        wanted = wanted.where(Node.id.in_(nodes))
    return {one.node_id: one for one in session.scalars(wanted)}


def recent(session: Session, node_id: str, most: int) -> list[NodeCheck]:
    """The last so many checks of a node, the newest first."""
    return list(
        session.scalars(
            select(NodeCheck).where(NodeCheck.node_id == node_id).order_by(NodeCheck.id.desc()).limit(most)
        )
    )


def counts(check: NodeCheck) -> dict[str, int]:
    """How many issues of each kind there are; nothing when that is not known."""
    return {} if check.has_drift is None else {name: getattr(check, f"{name}_count") or 0 for name in COUNTED}


def total(check: NodeCheck) -> int | None:
    """How many issues there are; None when that is not known."""
    return None if check.has_drift is None else sum(counts(check).values())


def told(check: NodeCheck) -> dict[str, Any]:
    """What is shown of a check; `at` is left to whoever shows it."""
    return {
        "ok": check.state == OK,
        "reachable": check.state != UNREACHABLE,
        "has_drift": check.has_drift,
        "total_issues": total(check),
        "error": check.error,
    }


def kept() -> int:
    """How many checks of a node are kept, at least one."""
    said = os.environ.get(VARIABLE, "")
    return max(1, int(said)) if said.isascii() and said.isdecimal() and len(said) < 10 else KEPT


def _forget_old(session: Session, nodes: Sequence[str]) -> None:
    """Of nodes that have more, the oldest go: one step along the index for each, most of the time for one row."""
    oldest_kept = (
        select(NodeCheck.id)
        .where(NodeCheck.node_id == Node.id)
        .order_by(NodeCheck.id.desc())
        .offset(kept() - 1)
        .limit(1)
        .correlate(Node)
        .scalar_subquery()
    )
    for start in range(0, len(nodes), _CHUNK):
        some = nodes[start : start + _CHUNK]
        query = select(Node.id, oldest_kept).where(Node.id.in_(some))
        too_old = [
            and_(NodeCheck.node_id == node_id, NodeCheck.id < oldest)
            for node_id, oldest in session.execute(query)
            if oldest is not None
        ]
        if too_old:
            session.execute(
                delete(NodeCheck).where(or_(*too_old)), execution_options={"synchronize_session": False}
            )
