"""A SQLite registry copied into a PostgreSQL one: every row of every table, and the ids that are used up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import JSON, Boolean, Integer, func, insert, select, text

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import copying, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.copying import copy_registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Base,
    Instance,
    License,
    Node,
    Utc,
)
from tests.postgres.opened import opened
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node

ROWS = 3
#: What no made-up value fits: constraints on states.
STATES = {"instance.state": "disconnected", "operation.state": "running", "node_check.state": "unreachable"}


@pytest.fixture
def registries(
    sqlite_registry_url: str, postgres_registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Registry, Registry]]:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    source = opened(sqlite_registry_url)
    target = opened(postgres_registry_url)
    yield source, target
    source.close()
    target.close()


def fill(registry: Registry) -> None:
    """So many rows in each table, with a value in every column that has room for one, and None in the last row."""
    with registry.write() as session:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.columns if column.computed is None]
            session.execute(
                insert(table),
                [
                    {
                        column.name: None if column.nullable and number == ROWS else made_up(column, number)
                        for column in columns
                    }
                    for number in range(1, ROWS + 1)
                ],
            )


def made_up(column: Any, number: int) -> Any:
    (key,) = column.foreign_keys or [None]
    if key is not None:
        return made_up(key.column, number)
    if str(column) in STATES:
        return STATES[str(column)]
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, Integer):
        return number * 100
    if isinstance(column.type, Utc):
        return datetime(2026, 1, number, 12, 30, 15, 123456, tzinfo=UTC)
    if isinstance(column.type, JSON):
        return {"ä": [number, None, {"x": True}]}
    return f"{column.name[:4]} ü {number}"


def content(registry: Registry, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    with registry.read() as session:
        return {
            table.name: [
                dict(row._mapping)
                for row in session.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in Base.metadata.sorted_tables
            if table.name not in but
        }


def copied(source: Registry, target: Registry, keep: bool = True) -> dict[str, int]:
    with source.read() as rows, target.write(keep=keep) as session:
        return copy_registry(rows, session)


def test_every_row_of_every_table_is_copied(
    registries: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BATCH", 2)  # so that there are several
    source, target = registries
    fill(source)
    before = content(source)

    counts = copied(source, target)

    assert counts == {table.name: ROWS for table in Base.metadata.sorted_tables}
    assert content(target, but=("audit_entry",)) == content(source, but=("audit_entry",))
    assert content(source) == before


def test_what_is_told_is_plain_text(registries: tuple[Registry, Registry]) -> None:
    """Ansible warns of variables that hold SQLAlchemy's own kind of text."""
    source, target = registries
    fill(source)
    assert {type(name) for name in copied(source, target)} == {str}


def test_the_audit_goes_on(registries: tuple[Registry, Registry]) -> None:
    source, target = registries
    for registry, actors in ((source, ("a", "b")), (target, ("made the schema",))):
        with registry.write() as session:
            session.add_all(
                AuditEntry(actor=actor, action="x", subject="y", result="success") for actor in actors
            )
    copied(source, target)
    with target.write() as session:
        session.add(AuditEntry(actor="later", action="x", subject="y", result="success"))
    with target.read() as session:
        found = session.scalars(select(AuditEntry.actor).order_by(AuditEntry.id)).all()
    assert found == ["made the schema", "a", "b", "later"]


def test_no_id_is_used_again(registries: tuple[Registry, Registry]) -> None:
    """Not even that of an instance that is gone: its interface may still be up somewhere."""
    source, target = registries
    with source.write() as session:
        node = add_node(session)
        for _ in range(3):
            last = add_instance(session, node)
        session.add_all(License(email="a@example.com") for _ in range(3))
        session.flush()
        session.delete(last)
    copied(source, target)
    with target.write() as session:
        node = session.scalars(select(Node)).one()
        assert add_instance(session, node).id == 4
        session.add(License(email="a@example.com"))
        session.flush()
        assert session.scalar(select(func.max(License.id))) == 4


def test_secrets_can_be_read_there(registries: tuple[Registry, Registry]) -> None:
    source, target = registries
    with source.write() as session:
        add_instance(session, add_node(session), private_key="secret")
    copied(source, target)
    with target.read() as session:
        assert session.scalars(select(Instance.private_key)).one() == "secret"
        assert session.execute(text("SELECT private_key FROM instance")).scalar_one() != "secret"


def test_only_an_empty_registry_is_filled(registries: tuple[Registry, Registry]) -> None:
    source, target = registries
    with source.write() as session:
        add_node(session)
    assert copied(source, target, keep=False)["node"] == 1
    assert content(target)["node"] == []
    copied(source, target)
    before = content(target)
    with pytest.raises(Conflict, match="only copied into an empty one, and there are rows in node"):
        copied(source, target)
    assert content(target) == before
