"""The schema on both databases: what the migrations make is what the models say, once, and never half."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import database, schema
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    make_engine,
    parse_url,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Operation,
)

PROCESSES = 6


@pytest.fixture
def empty_url(database_url: str) -> str:
    """A database without tables; of SQLite, an engine does not make the file."""
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").touch()
    return database_url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    engine = make_engine(parse_url(empty_url))
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


# PostgreSQL writes the expression in its own words, which Alembic cannot compare.
@pytest.mark.filterwarnings("ignore:Computed default on operation.holds")
def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    schema.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_constraints_are_named_as_the_models_name_them(engine: Engine) -> None:
    """What compare_metadata does not look at: checks, and on SQLite the count that never goes back."""
    schema.upgrade(engine)
    inspector = inspect(engine)
    for table in Base.metadata.tables.values():
        wanted = {str(each.name) for each in table.constraints if str(each.name).startswith("ck_")}
        assert {each["name"] for each in inspector.get_check_constraints(table.name)} == wanted, table.name
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'instance'")).scalar()
        assert "AUTOINCREMENT" in str(made)


def test_traffic_has_room(engine: Engine) -> None:
    """More than the 2 GiB that PostgreSQL's integer would end at."""
    schema.upgrade(engine)
    types = {column["name"]: str(column["type"]) for column in inspect(engine).get_columns("peer_status")}
    assert (types["received_bytes"], types["sent_bytes"]) == ("BIGINT", "BIGINT")


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [schema.HEAD]
    # They are compared as texts, to tell older from newer.
    revisions = [each.revision for each in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
    assert {len(revision) for revision in revisions} == {4}


def test_upgrade_tells_before_and_after_and_is_done_once(engine: Engine) -> None:
    assert schema.upgrade(engine) == (None, schema.HEAD)
    assert tables(engine) == {*Base.metadata.tables, "alembic_version"}
    assert schema.upgrade(engine) == (schema.HEAD, schema.HEAD)


def test_the_first_version_is_upgraded_with_what_is_in_it(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.connect().execution_options(registry_write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO operation (id, kind, state, instance_name, request, progress, attempts, requested_by, "
                "created_at) VALUES ('one', 'remove', 'running', 'a@example.com', '{}', '{}', 1, 'ops', '2026-11-01')"
            )
        )
    with pytest.raises(NotUsable, match=r"at revision 0001 and this version works with .*registry\.yml"):
        schema.require(engine)
    assert schema.upgrade(engine) == ("0001", schema.HEAD)
    with Session(engine) as session:
        operation = session.get_one(Operation, "one")
        assert (operation.kind, operation.holds, operation.not_before) == ("remove", "a@example.com", None)


def test_a_failed_upgrade_leaves_nothing(engine: Engine) -> None:
    # What a later table asks of an earlier one is not there.
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE user_session (id INTEGER)"))
    with pytest.raises(Exception, match="user_session"):
        schema.upgrade(engine)
    assert tables(engine) == {"user_session"}


def test_many_processes_at_once_upgrade_once(empty_url: str) -> None:
    results = in_processes(_upgrade, empty_url)
    assert sorted(results, key=str) == [(schema.HEAD, schema.HEAD)] * (PROCESSES - 1) + [(None, schema.HEAD)]
    engine = make_engine(parse_url(empty_url))
    assert tables(engine) == {*Base.metadata.tables, "alembic_version"}


@pytest.mark.parametrize("revision", ["0999", "9999", "f00baa"])
def test_a_newer_schema_is_refused(engine: Engine, revision: str) -> None:
    schema.upgrade(engine)
    set_revision(engine, revision)
    for use in (schema.require, schema.upgrade):
        with pytest.raises(NotUsable, match=f"revision {revision}"):
            use(engine)
    with engine.connect() as connection:
        assert schema.revision(connection) == revision


def test_an_older_schema_is_not_worked_with(engine: Engine) -> None:
    schema.upgrade(engine)
    set_revision(engine, "0000")
    with pytest.raises(NotUsable, match=r"at revision 0000 and this version works with .*registry\.yml"):
        schema.require(engine)


def test_a_file_gets_its_schema_by_the_way(sqlite_url: str) -> None:
    url = parse_url(sqlite_url)
    Path(url.database or "").touch()
    engine = make_engine(url)
    schema.require(engine)
    assert "node" in tables(engine)
    engine.dispose()


def test_a_database_on_a_server_does_not(postgres_url: str) -> None:
    engine = make_engine(parse_url(postgres_url))
    with pytest.raises(NotUsable, match=r"no schema yet: run playbooks/registry\.yml"):
        schema.require(engine)
    assert tables(engine) == set()
    engine.dispose()


def test_what_alembic_runs_does_nothing_when_it_is_imported() -> None:
    import_module(f"{schema.__package__}.migrations.env")


# -- many processes


def _upgrade(url: str) -> tuple[str | None, str]:
    engine = make_engine(parse_url(url))
    try:
        return schema.upgrade(engine)
    finally:
        engine.dispose()


def in_processes(function: Any, url: str) -> list[Any]:
    """What the function gives in each of PROCESSES processes that begin at the same moment."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    answers = context.SimpleQueue()

    def run() -> None:
        barrier.wait()
        try:
            answers.put(function(url))
        except Exception as error:
            answers.put(repr(error))

    processes = [context.Process(target=run) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def test_whoever_finds_the_file_locked_tries_again_and_not_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite does not wait by itself with the switch to WAL."""
    path = Path(parse_url(sqlite_url).database or "")
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.01)
    engine = make_engine(parse_url(sqlite_url))
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    holder.execute("CREATE TABLE something (number INTEGER)")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(schema, "_SWITCH_SECONDS", 0.0)
    with pytest.raises(OperationalError, match="locked"):
        schema.upgrade(engine)
    monkeypatch.setattr(schema, "_SWITCH_SECONDS", 60.0)
    waited = []

    def let_go(seconds: float) -> None:
        waited.append(seconds)
        holder.execute("ROLLBACK")

    monkeypatch.setattr(time, "sleep", let_go)
    assert schema.upgrade(engine) == (None, schema.HEAD)
    assert len(waited) == 1
    holder.close()
    engine.dispose()
