# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the registry, and the transactions in which it is read and written.

VPNFLEET_DATABASE_URL says where it is: SQLite (the default, in the user's data directory) or PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable

VARIABLE = "VPNFLEET_DATABASE_URL"
BUSY_TIMEOUT = 30.0  # seconds that a writer waits for the one before
# Any number: writers of one registry take the same PostgreSQL advisory lock.
_WRITERS = 0x76706E66


@dataclass(frozen=True)
class Registry:
    """An open registry."""

    engine: Engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads; it sees one state of the registry. Raises NotUsable."""
        with _told(self.engine), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin(), Session(connection, expire_on_commit=False) as session:
                yield session

    @contextmanager
    def write(self, keep: bool = True) -> Iterator[Session]:
        """A transaction that writes. There is one at a time, on both databases: what is free when it is looked up is
        still free when it is taken. With `keep` false all of it is rolled back (check mode). Raises NotUsable."""
        with _told(self.engine), self.engine.connect() as connection:
            connection = connection.execution_options(registry_write=True)
            with connection.begin() as transaction:
                if self.engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
                with Session(connection, expire_on_commit=False) as session:
                    yield session
                    session.flush()
                if not keep:
                    transaction.rollback()

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


def open_registry(url: str | None = None) -> Registry:
    """Open the registry at `url`, else at VPNFLEET_DATABASE_URL, else the default one.

    A SQLite database that does not exist is made, with its schema and, unless VPNFLEET_ENCRYPTION_KEY is set, a key
    file beside it. Raises NotUsable with what to do next.
    """
    where = parse_url(url or os.environ.get(VARIABLE) or f"sqlite:///{default_path()}")
    keys = secrets.keys_from_environment()
    if where.get_backend_name() == "sqlite":
        path = Path(where.database or "")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let everybody read it
        if not keys:
            keys = secrets.keys_from_file(key_path(path))
    elif not keys:
        raise NotUsable(
            f"{secrets.VARIABLE} is not set: with PostgreSQL, the key is not kept beside the data"
        )
    secrets.use(keys)
    registry = Registry(make_engine(where))
    with _told(registry.engine):
        schema.require(registry.engine)
    return registry


def default_path() -> Path:
    """The SQLite file of who has configured nothing."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "vpnfleet" / "registry.db"


def key_path(database: Path) -> Path:
    """The key file of a SQLite database."""
    return database.with_suffix(".key")


def parse_url(text: str) -> URL:
    """A database URL. Raises NotUsable, without repeating what may be a password."""
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except ArgumentError:
        raise NotUsable(
            f"{VARIABLE} is no database URL, such as postgresql+psycopg://user@host/vpnfleet"
        ) from None
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise NotUsable(
                f"{VARIABLE}: a SQLite registry needs a file, as in sqlite:////var/lib/vpnfleet/registry.db"
            )
        return url.set(drivername="sqlite")
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise NotUsable(f"{VARIABLE}: the registry is a SQLite or a PostgreSQL database, not {backend}")


def make_engine(url: URL) -> Engine:
    """An engine for either database. Connections are not pooled: each Ansible worker is a fork of its own."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 would begin transactions of its own, and too late
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("registry_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """Turn what the database says when it is not there into a sentence. A constraint that is hurt is not meant."""
    try:
        yield
    except (InterfaceError, OperationalError) as error:
        raise NotUsable(
            f"the registry ({engine.url.render_as_string()}) cannot be used: {_line(error)}"
        ) from None


def _line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
