# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that are recorded before anything runs, and that a run takes up by their ids.

    submit  a request becomes a row
    claim   a worker takes rows whose turn it is, those of one kind on one node together
    begin   the worker's run takes them up
    release what the run has not ended goes back

Operations on an instance keep their order. What had its try and is to be tried again holds up nothing: a later one
supersedes it.

A look asks for what a run publishes (check mode, or the drift of nodes) and changes nothing; its row has neither
instance nor node. No run takes it up; whoever submitted it has it run, and ends it. Those at drift are shared: see
`looks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, func, not_, or_, select, update
from sqlalchemy.orm import Session, defer

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    looks,
    operations,
    owner,
    results,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    Full,
    Invalid,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    require_node,
    unknown_instances,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    OperationEvent,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
    read_requests,
    sealed,
    unsealed_peers,
)

VARIABLE = "operations"
UNFINISHED = ("pending", "running")
#: Of one run: its results are published together.
MOST_TOGETHER = 200
#: Rows that are looked at for their turn; more wait behind them.
_MOST_LOOKED_AT = 5000
_BUSY_PAUSE = timedelta(seconds=2)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Batch:
    """What one run carries out: operations of one kind on one node (None: it is not known yet, or there is none)."""

    kind: str
    node: str | None
    ids: tuple[str, ...]
    look: bool = False
    check: bool = False
    tries: int = 0  # of the one that was tried most

    @property
    def place(self) -> tuple[str, str | None]:
        """Batches of one place are carried out one after the other; a plan is a place of its own."""
        return (self.kind, self.ids[0] if self.check else self.node)


def submit(
    session: Session, kind: str, asked: Mapping[str, Any], actor: str, check: bool = False
) -> Operation:
    """Record what is asked for; `asked` are the playbook's variables. Raises Invalid and NotFound.

    Whether it can be done is seen when its turn comes: what is before it may change that.
    """
    requests = read_requests(kind, asked)
    if len(requests) != 1:
        raise Invalid("", "one operation at a time is recorded")
    (request,) = requests
    name = request.get("instance")
    if name is not None and kind in ("disconnect", "transfer"):
        earlier = select(Operation.id).where(
            Operation.instance_name == name,
            Operation.kind == "provision",
            Operation.state.in_(UNFINISHED),
        )
        if unknown_instances(session, [name]) and session.scalar(earlier.limit(1)) is None:
            raise NotFound(f"no instance is called {name}")
    node = require_node(session, request["node"]) if request.get("node") is not None else None
    look = check or kind == "drift"
    operation = Operation(
        id=new_id(),
        kind=kind,
        state="pending",
        instance_name=None if look else name,
        node_id=node.id if node is not None and kind == "reconcile" and not look else None,
        request={**sealed(request), **({"check": True} if check else {})},
        progress={},
        attempts=0,
        requested_by=actor,
        created_at=now(),
    )
    session.add(operation)
    session.flush()
    return operation


def is_look(operation: Operation) -> bool:
    """Whether it changes nothing, neither in the registry nor on nodes."""
    return _is_look(operation.kind, operation.node_id, operation.request.get("check"))


def _is_look(kind: str, node_id: str | None, check: Any) -> bool:
    # What is recorded of each node that such a look looks at has the node.
    return bool(check) or (kind == "drift" and node_id is None)


def requested(session: Session, kind: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run is asked for, out of its variables or out of the rows that they name. Raises Invalid."""
    if variables.get(VARIABLE) is None:
        return read_requests(kind, variables)
    return [request_of(operation) for operation in rows(session, kind, variables)]


def rows(session: Session, kind: str, variables: Mapping[str, Any]) -> list[Operation]:
    """The operations of which a run is told the ids, in their order. Raises Invalid."""
    given = variables[VARIABLE]
    if not isinstance(given, (list, tuple)) or not given:
        raise Invalid(VARIABLE, "is not a list of ids")
    ids = ["".join(one) if isinstance(one, str) else "" for one in given]
    if any(_ID.fullmatch(one) is None for one in ids):
        raise Invalid(VARIABLE, "holds something that is not the id of an operation")
    found = list(
        session.scalars(
            select(Operation)
            .where(Operation.id.in_(ids), Operation.kind == kind)
            .order_by(Operation.created_at, Operation.id)
        )
    )
    if len(found) != len(set(ids)):
        raise Invalid(VARIABLE, f"holds the id of something that is no {kind}")
    return found


def begin(session: Session, recorded: Sequence[Operation], run: operations.Run) -> list[Operation]:
    """Take up operations. One that cannot be done ends, and one whose turn it is not stays: neither is in the way of
    the others."""
    taken: list[Operation] = []
    for operation in recorded:
        if operation.state not in UNFINISHED or is_look(operation):
            continue
        if operation.state == "running" and owner.is_alive(operation):
            continue
        try:
            with session.begin_nested():
                taken += operations.take_up(session, operation, run)
        except Busy:
            operation.not_before = now() + _BUSY_PAUSE
        except (Invalid, NotFound, Conflict, Full) as error:
            refused = results.error(str(error), error.code)
            endings.end(session, operation, refused, run.actor or operation.requested_by)
    session.flush()
    return taken


def claim(session: Session, worker: str, lease: timedelta, places: Iterable[Any], most: int) -> list[Batch]:
    """Up to so many batches whose turn it is, none of the `places` where one is at work. They are the worker's until
    its lease runs out, or until its process is no more."""
    chosen: dict[tuple[str, str | None], list[str]] = {}
    for number, place in _whose_turn_it_is(session):
        if place not in chosen and (place in places or len(chosen) >= most):
            continue
        together = chosen.setdefault(place, [])
        if len(together) < MOST_TOGETHER:
            together.append(number)
    moment = now()
    batches = {place: _rows(session, numbers) for place, numbers in chosen.items()}
    for rows_of_place in batches.values():
        for operation in rows_of_place:
            if operation.state == "pending":
                operation.owner, operation.lease_until = worker, moment + lease
                if is_look(operation):
                    operation.run_id = None  # of a run that is dead
            else:
                # Whoever held it is dead, and is to stay so in everybody's eyes, also when this worker tells by
                # `extend` that what it has claimed is held.
                operation.owner = operation.lease_until = None
                operation.not_before = moment + lease
    session.flush()
    return [
        Batch(
            kind=kind,
            node=None if together[0].request.get("check") else node,
            ids=tuple(operation.id for operation in together),
            look=is_look(together[0]),
            check=bool(together[0].request.get("check")),
            tries=max(operation.attempts for operation in together),
        )
        for (kind, node), together in batches.items()
    ]


def extend(session: Session, lease: timedelta, ids: Sequence[str]) -> None:
    """Tell that whoever holds these operations is alive."""
    until = now() + lease
    held = [*ids, *looks.joined(session, ids)]
    session.execute(
        update(Operation)
        .where(Operation.id.in_(held), Operation.state.in_(UNFINISHED), Operation.owner.is_not(None))
        .values(lease_until=until)
    )


def release(session: Session, worker: str, ids: Sequence[str], pause: timedelta) -> int:
    """Give back what a run has left as it was, to be tried again after the pause; returns how many there are."""
    moment = now()
    left = 0
    for operation in session.scalars(
        select(Operation).where(Operation.id.in_(ids), Operation.state.in_(UNFINISHED))
    ):
        if operation.state == "running" and not owner.is_alive(operation):
            operation.not_before = moment + pause
            left += 1
        elif operation.state == "pending" and operation.owner == worker:
            operation.owner = operation.lease_until = None
            if operation.not_before is None or operation.not_before <= moment:
                operation.not_before = moment + pause
                left += 1
    return left


def give_back(session: Session, worker: str, but: Sequence[str]) -> None:
    """Give back what a worker has claimed without knowing: the registry went away while it was told."""
    held = [*but, *looks.joined(session, but)]
    session.execute(
        update(Operation)
        .where(Operation.owner == worker, Operation.state == "pending", Operation.id.not_in(held))
        .values(owner=None, lease_until=None)
    )


def end_abandoned(session: Session) -> None:
    """End what looks at single nodes have left whose run is dead: nobody waits for them, and no run takes them up."""
    looks = select(Operation).where(
        Operation.kind == "drift", Operation.state == "running", Operation.node_id.is_not(None)
    )
    for operation in session.scalars(looks):
        if not owner.is_alive(operation):
            endings.cancel(
                session, operation, "its run ended before it was done", operation.requested_by or "vpnfleet"
            )


def cancel(session: Session, operation: Operation, actor: str) -> None:
    """End an operation that nobody is at work on, or ask whoever is to stop. Raises Conflict when it has ended."""
    if operation.state not in UNFINISHED:
        raise Conflict(f"operation {operation.id} has ended already: it is {operation.state}")
    if operation.owner is None or not owner.is_alive(operation):
        # Whoever had begun it is no more, or will not try it again: nobody else brings its nodes in order.
        reconcile(session, end_canceled(session, operation, actor), actor)
    elif operation.kind == "drift" and is_look(operation) and looks.is_shared(session, operation):
        end_canceled(session, operation, actor)  # its run goes on for the others
    elif operation.cancel_requested_by is None:
        operation.cancel_requested_by = actor
        told = {"message": "whoever is at work on it ends it"}
        endings.audit(session, operation, "accepted", actor, told, "cancel")


def end_canceled(session: Session, operation: Operation, actor: str) -> list[str]:
    """Give an operation up; returns the ids of the nodes on which something of it may be: see `reconcile`."""
    if operation.state not in UNFINISHED:
        return []
    # Whoever gives up a reconcile does not want another one.
    begun = operation.attempts > 0 and operation.instance_name is not None
    endings.cancel(session, operation, f"canceled by {actor}", actor)
    if not begun:
        return []
    planned = (operation.progress or {}).get("stages", {}).values()
    return sorted({number for nodes in planned for number in nodes})


def reconcile(session: Session, nodes: Iterable[str], actor: str) -> None:
    """Have nodes, by their ids, brought to what the registry says by now. One that it no longer has is left out."""
    for number in nodes:
        node = session.get(Node, number)
        if node is not None:
            submit(session, "reconcile", {"node": node.name}, actor)


def tell(session: Session, ids: Iterable[str], event: str, data: dict[str, Any]) -> None:
    """Note for whoever follows these operations what their run does. Their states are in their rows."""
    session.add_all(OperationEvent(operation_id=number, event=event, data=data) for number in ids)


def _whose_turn_it_is(session: Session) -> list[tuple[str, tuple[str, str | None]]]:
    """The ids of those whose turn it is, and the place of each, in their order.

    It holds all other writers up: one query, of no more columns than it takes, however many wait.
    """
    moment = now()
    # Tried, and not to be tried again yet: it is in nobody's way. There may be many of them, of a node that is dead.
    resting = and_(
        Operation.state == "pending",
        Operation.owner.is_(None),
        Operation.attempts > 0,
        Operation.not_before > moment,
    )
    waiting = session.execute(
        select(
            Operation.id,
            Operation.kind,
            Operation.state,
            Operation.instance_name,
            Operation.node_id,
            Operation.request["node"].as_string().label("wanted_node"),
            Operation.request["check"].as_boolean().label("check"),
            Operation.owner,
            Operation.lease_until,
            Operation.not_before,
            Operation.attempts,
            Node.name.label("node"),
        )
        .outerjoin(Instance, Instance.name == Operation.instance_name)
        .outerjoin(Node, Node.id == func.coalesce(Operation.node_id, Instance.node_id))
        .where(Operation.state.in_(UNFINISHED), or_(not_(resting), Operation.not_before.is_(None)))
        .order_by(Operation.created_at, Operation.id)
        .limit(_MOST_LOOKED_AT)
    )
    found: list[tuple[str, tuple[str, str | None]]] = []
    occupied: set[str] = set()
    looked_at: set[tuple[str, str | None]] = set()
    for row in waiting:
        look = _is_look(row.kind, row.node_id, row.check)
        if row.kind == "drift" and not look:
            continue  # a part of a look; nobody waits for it once its run is dead
        if look and not row.check:
            place = (row.kind, row.wanted_node)
            if row.owner is not None and owner.is_alive(row):
                looked_at.add(place)
            elif row.not_before is None or row.not_before <= moment:
                found.append((row.id, place))
            continue
        subject = row.instance_name or row.node_id or row.id
        if row.owner is not None and owner.is_alive(row):
            occupied.add(subject)
            continue
        if row.not_before is not None and row.not_before > moment:
            if row.attempts == 0 or row.state == "running":
                occupied.add(subject)
            continue
        if subject not in occupied:
            occupied.add(subject)
            node = row.node if row.node_id is not None else row.wanted_node or row.node
            found.append((row.id, (row.kind, row.id if look else node)))
    # What is looked at already, by whichever worker: those that have come since have the next look together.
    return [(number, place) for number, place in found if place not in looked_at]


def _rows(session: Session, numbers: Sequence[str]) -> list[Operation]:
    found = session.scalars(
        select(Operation).where(Operation.id.in_(numbers)).options(defer(Operation.result))
    )
    return sorted(found, key=lambda operation: numbers.index(operation.id))


def request_of(operation: Operation) -> dict[str, Any]:
    """What is asked for, as `read_requests` gives it."""
    request = operation.request
    found = {name: value for name, value in request.items() if name not in ("check", "peers_sealed")}
    if "peers_sealed" in request:
        found["peers"] = unsealed_peers(request)
    return found
