# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the registry, and the transactions in which it is read and written.

VPNFLEET_DATABASE_URL says where it is: SQLite (the default, in the user's data directory) or PostgreSQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    TimeoutError,  # noqa: A004
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NoSchema, NotUsable

VARIABLE = "VPNFLEET_DATABASE_URL"
BUSY_TIMEOUT = 30.0  # seconds that a writer waits for the one before
# Any number: writers of one registry take the same PostgreSQL advisory lock.
_WRITERS = 0x76706E66
#: A server that has gone without a word is given up after half a minute.
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "tcp_user_timeout": 30_000,
}


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
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(BUSY_TIMEOUT * 1000)}")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
                with Session(connection, expire_on_commit=False) as session:
                    yield session
                    session.flush()
                if not keep:
                    transaction.rollback()

    def upgrade(self) -> tuple[str | None, str]:
        """Make or upgrade the schema; the revision before and after. Raises NotUsable."""
        with _told(self.engine):
            return schema.upgrade(self.engine)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


def open_registry(
    url: str | None = None, schema_required: bool = True, make: bool = True, pooled: bool = False
) -> Registry:
    """Open the registry at `url`, else at VPNFLEET_DATABASE_URL, else the default one.

    A SQLite database that does not exist is made, with its schema and, unless VPNFLEET_ENCRYPTION_KEY is set, a key
    file beside it; with `make` false that is NoSchema. With `schema_required` false it is opened as it is, for what
    makes and upgrades the schema. `pooled` is for a process of many threads that keeps it open. Raises NotUsable with
    what to do next.
    """
    where = _where(url)
    if not make:
        _require_file(where)
    keys = secrets.keys_from_environment()
    if where.get_backend_name() == "sqlite":
        path = Path(where.database or "")
        keys = _make_files(path, keys)
    elif not keys:
        raise NotUsable(
            f"{secrets.VARIABLE} is not set: with PostgreSQL, the key is not kept beside the data"
        )
    secrets.use(keys)
    registry = Registry(make_engine(where, pooled))
    with _told(registry.engine):
        if schema_required:
            schema.require(registry.engine)
        with registry.engine.connect() as connection, connection.begin():
            if schema.revision(connection) == schema.HEAD:
                secrets.prove(connection)
    return registry


def look_into(url: str | None) -> Registry:
    """The registry for reading what is no secret: no key is needed, and nothing is made or upgraded.

    Raises NoSchema when there is nothing to read yet, else NotUsable.
    """
    where = _where(url)
    _require_file(where)
    registry = Registry(make_engine(where))
    with _told(registry.engine), registry.engine.connect() as connection, connection.begin():
        schema.look_at(connection)
    return registry


def schema_revision(url: str | None = None) -> str | None:
    """The revision of the schema at `url`, and None where there is none; nothing is made. Raises NotUsable."""
    where = _where(url)
    if _is_missing(where):
        return None
    engine = make_engine(where)
    with _told(engine), engine.connect() as connection, connection.begin():
        return schema.revision(connection)


def is_there(url: str | None = None) -> bool:
    """Whether there is anything to open; of a server, nobody asks that here. Raises NotUsable."""
    return not _is_missing(_where(url))


def _is_missing(where: URL) -> bool:
    """Whether it is a SQLite database that opening would make."""
    return where.get_backend_name() == "sqlite" and not Path(where.database or "").exists()


def _require_file(where: URL) -> None:
    if _is_missing(where):
        raise NoSchema(
            f"there is no registry at {where.database} yet: playbooks/nodes.yml makes it, with its first nodes"
        )


def _where(url: str | None) -> URL:
    return parse_url(url or os.environ.get(VARIABLE) or f"sqlite:///{default_path()}")


def _make_files(database: Path, keys: list[str]) -> list[str]:
    """Make the file of a SQLite database, and find the keys: `keys`, else those of the key file, which is made with a
    new database and never later. Raises NotUsable."""
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let everybody read it
        if keys:
            return keys
        key_file = key_path(database)
        # The key comes before the first table: beside a database with tables, a missing one was lost.
        if database.stat().st_size > 0 and not key_file.exists():
            raise NotUsable(
                f"the registry's key file {key_file} is gone and {secrets.VARIABLE} is not set: put it back from your "
                "backup; without it, nobody can read the keys in the registry"
            )
        return secrets.keys_from_file(key_file)
    except OSError as error:
        raise NotUsable(f"the registry's file {error.filename}: {error.strerror}") from None


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
    except (ArgumentError, ValueError):
        # The latter for a port that is no number, and might be a piece of a password.
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


def make_engine(url: URL, pooled: bool = False) -> Engine:
    """An engine for either database. Connections are not pooled unless that is asked for: each Ansible worker is a fork
    of its own."""
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        pool = {"poolclass": QueuePool, "pool_size": 10, "max_overflow": 20, "pool_timeout": 10}
    if url.get_backend_name() != "sqlite":
        return create_engine(url, **pool, pool_pre_ping=pooled, connect_args=_POSTGRESQL)
    # SQLite would make an empty database in the place of one that was taken away in the middle of a run.
    path = Path(url.database or "").absolute()
    where = f"{path.as_uri()}?mode=rw"

    def connect() -> _Connection:
        file = _identity(path)
        connection = sqlite3.connect(
            where, timeout=BUSY_TIMEOUT, check_same_thread=not pooled, factory=_Connection, uri=True
        )
        connection.file = file
        return connection

    engine = create_engine(url, **pool, creator=connect)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 would begin transactions of its own, and too late
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "checkout")
    def look(connection: _Connection, _record: Any, _proxy: Any) -> None:
        # What is written to a file that was taken away or replaced is lost, and nobody is told.
        if pooled and connection.file != _identity(path):
            raise DisconnectionError

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("registry_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


class _Connection(sqlite3.Connection):
    file: tuple[int, int] | None = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """Turn what the database says when it is not there into a sentence. A constraint that is hurt is not meant, nor a
    mistake of ours."""
    try:
        yield
    except TimeoutError:
        raise NotUsable("the registry cannot be used: all connections of the pool are taken") from None
    except (InterfaceError, DatabaseError) as error:
        # The base itself: SQLite raises it for a file that is damaged, or no database.
        if not isinstance(error, (InterfaceError, OperationalError)) and error.__class__ is not DatabaseError:
            raise
        raise NotUsable(
            # A password may stand among the parameters too.
            f"the registry ({engine.url.set(query={}).render_as_string()}) cannot be used: {_line(error)}"
        ) from None


def _line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
