# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving house: a SQLite registry copied, row by row, into an empty PostgreSQL one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Table, func, insert, select, text
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Base

_BATCH = 5000  # rows in memory at a time
_AUDIT = AuditEntry.__table__


def copy_registry(source: Session, target: Session) -> dict[str, int]:
    """Copy all rows of `source` (SQLite) into `target` (PostgreSQL); by table, how many.

    Ids stay, and those that `source` would not use again are not used again either. Only the audit may have rows
    already: what is copied comes behind them. Secrets are decrypted and encrypted on the way, by the keys of this
    process. Raises Conflict when `target` holds anything else.
    """
    tables = Base.metadata.sorted_tables
    for table in tables:
        if table is not _AUDIT and target.execute(select(*table.primary_key.columns).limit(1)).first():
            raise Conflict(f"a registry is only copied into an empty one, and there are rows in {table.name}")
    # Names of tables are of a kind of text that is SQLAlchemy's own.
    counts = {str(table.name): _copy(source, target, table) for table in tables}
    for table in tables:
        _set_next_id(source, target, table)
    return counts


def _copy(source: Session, target: Session, table: Table) -> int:
    columns = [
        column
        for column in table.columns
        if column.computed is None and not (table is _AUDIT and column.primary_key)
    ]
    count = 0
    for rows in _batches(source, table, columns):
        target.connection().execute(insert(table), rows)
        count += len(rows)
    return count


def _batches(source: Session, table: Table, columns: list[Column[Any]]) -> Iterator[list[dict[str, Any]]]:
    found = source.connection().execute(
        select(*columns).order_by(*table.primary_key.columns), execution_options={"yield_per": _BATCH}
    )
    for rows in found.mappings().partitions():
        yield [dict(row) for row in rows]


def _set_next_id(source: Session, target: Session, table: Table) -> None:
    """Let the next row have an id that no row has or, where SQLite remembers that, has ever had."""
    column = table.autoincrement_column
    if column is None:
        return
    used = target.execute(select(func.max(column))).scalar() or 0
    if table.dialect_options["sqlite"]["autoincrement"]:
        remembered = source.execute(
            text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table.name}
        ).scalar()
        used = max(used, remembered or 0)
    if used:
        target.execute(
            text("SELECT setval(pg_get_serial_sequence(:table, :column), :used)"),
            {"table": f'"{table.name}"', "column": column.name, "used": used},
        )
