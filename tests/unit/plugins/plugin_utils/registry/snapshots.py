"""Copies of all that is in a registry, to begin again from the same point many times."""

from __future__ import annotations

from sqlalchemy import column, delete, insert, select, table, text
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base


def keep(registry: Registry, name: str) -> None:
    """Keep what is there under this name, in tables beside the registry's."""
    with registry.write() as session:
        for each in Base.metadata.sorted_tables:
            columns = ", ".join(f'"{column}"' for column in _columns(each.name))
            session.execute(text(f"DROP TABLE IF EXISTS {name}_{each.name}"))
            session.execute(text(f'CREATE TABLE {name}_{each.name} AS SELECT {columns} FROM "{each.name}"'))  # noqa: S608


def put_back(registry: Registry, name: str) -> None:
    """Put back what was kept."""
    with registry.write() as session:
        empty(session)
        for each in Base.metadata.sorted_tables:
            columns = _columns(each.name)
            kept = table(f"{name}_{each.name}", *map(column, columns))
            session.execute(insert(each).from_select(columns, select(kept), include_defaults=False))


def empty(session: Session, *but: str) -> None:
    """Remove all rows, but those of some tables."""
    for each in reversed(Base.metadata.sorted_tables):
        if each.name not in but:
            session.execute(delete(each))


def _columns(name: str) -> list[str]:
    """Those that can be written."""
    return [column.name for column in Base.metadata.tables[name].columns if column.computed is None]
