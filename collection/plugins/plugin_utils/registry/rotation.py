# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotating the encryption key: every secret in the registry anew, encrypted by the first of the keys.

Secrets stand in columns of the type Encrypted and, within JSON, under keys that end in `_sealed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Table,
    Text,
    bindparam,
    cast,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.secrets import Encrypted, renewed

_BATCH = 2000  # rows in memory at a time
_SEALED = "_sealed"


def rotate(session: Session) -> dict[str, int]:
    """Encrypt by the first key what another one encrypted; by `table.column`, in how many rows that was.

    All of it belongs to the session's transaction: after a run that dies in the middle nothing has changed, and a
    second run has nothing left to do. Raises NotUsable when no key fits a secret.
    """
    counts = {}
    for column in encrypted_columns():
        counts[str(column)] = _rotate(session, column, Text(), column.is_not(None), renewed)
    for column in json_columns():
        there = cast(column, Text).contains(f'{_SEALED}"')
        count = _rotate(session, column, JSON(), there, renewed_within)
        if count:
            counts[str(column)] = count
    return counts


def encrypted_columns() -> list[Column[Any]]:
    """The columns, of all tables, that hold a secret."""
    return [column for column in _columns() if isinstance(column.type, Encrypted)]


def json_columns() -> list[Column[Any]]:
    """The columns, of all tables, that hold data in which a secret may be sealed."""
    return [column for column in _columns() if isinstance(column.type, JSON)]


def renewed_within(data: Any) -> Any:
    """Data with every sealed text in it renewed; None when there was nothing to renew. Raises NotUsable."""
    if isinstance(data, list):
        fresh = {index: renewed_within(item) for index, item in enumerate(data)}
        changed = [fresh[index] if fresh[index] is not None else item for index, item in enumerate(data)]
        return changed if any(item is not None for item in fresh.values()) else None
    if not isinstance(data, dict):
        return None
    fresh = {
        key: renewed(value)
        if isinstance(value, str) and str(key).endswith(_SEALED)
        else renewed_within(value)
        for key, value in data.items()
    }
    fresh = {key: value for key, value in fresh.items() if value is not None}
    return {**data, **fresh} if fresh else None


def _columns() -> list[Column[Any]]:
    return [column for table in Base.metadata.sorted_tables for column in table.columns]


def _rotate(
    session: Session,
    column: Column[Any],
    stored: Any,
    where: ColumnElement[bool],
    renew: Callable[[Any], Any],
) -> int:
    """Renew what `column` holds in the rows for which `where` is true; it is read and written as the type `stored`."""
    table = column.table
    if not isinstance(table, Table):
        raise AssertionError("not reached")  # a column of a mapped class has a table
    # What a row's own "changed at" tells must not change with how it is stored.
    untouched = {other.name: other for other in table.columns if other.onupdate is not None}
    # Under names of their own: in an update, those of the columns are taken.
    keys = {f"key_{key.name}": key for key in table.primary_key.columns}
    statement = (
        update(table)
        .where(*(key == bindparam(name) for name, key in keys.items()))
        .values({**untouched, column.name: bindparam("fresh", type_=stored)})
    )
    count = 0
    for rows in _batches(session, list(keys.values()), column, stored, where):
        changes = []
        for *key, value in rows:
            fresh = renew(value)
            if fresh is not None:
                changes.append({"fresh": fresh, **dict(zip(keys, key, strict=True))})
        if changes:
            session.connection().execute(statement, changes)
        count += len(changes)
    return count


def _batches(
    session: Session, keys: list[Column[Any]], column: Column[Any], stored: Any, where: ColumnElement[bool]
) -> Iterator[list[Any]]:
    """The rows in the order of their keys, each as its key and what is stored in the column."""
    everything = select(*keys, type_coerce(column, stored)).where(where).order_by(*keys)
    rows = session.execute(everything.limit(_BATCH)).all()
    while rows:
        yield list(rows)
        last = tuple_(*rows[-1][:-1])
        rows = session.execute(everything.where(tuple_(*keys) > last).limit(_BATCH)).all()
