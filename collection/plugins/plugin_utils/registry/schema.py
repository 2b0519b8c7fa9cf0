# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the schema and bringing it up to date, by Alembic. What every run needs is a look at one row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NoSchema

#: The revision that this code works with: the newest in migrations/versions.
HEAD = "0004"
MIGRATIONS = Path(__file__).with_name("migrations")
# Two runs that find an old schema at the same moment upgrade it once.
_UPGRADERS = 0x76706E67
_SWITCH_SECONDS = 30.0
_NONE = "the registry has no schema yet: run playbooks/registry.yml"


def revision(connection: Connection) -> str | None:
    """The schema's revision; None where there is none at all."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def require(engine: Engine) -> None:
    """Make sure that the schema is the one of this code; an empty SQLite database gets it. Raises NoSchema with what to
    do."""
    with engine.connect() as connection, connection.begin():
        found = revision(connection)
    if found is None and engine.dialect.name == "sqlite":
        upgrade(engine)
    elif found is None:
        raise NoSchema(_NONE)
    else:
        _check(found)


def look_at(connection: Connection) -> None:
    """Make sure that the schema is the one of this code, and change nothing. Raises NoSchema."""
    found = revision(connection)
    if found is None:
        raise NoSchema(_NONE)
    _check(found)


def _check(found: str) -> None:
    if found != HEAD:
        raise NoSchema(
            f"the registry's schema is at revision {found} and this version works with {HEAD}: "
            + (
                "run playbooks/registry.yml"
                if found < HEAD
                else "use the version that upgraded it, or a newer one"
            )
        )


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Make or upgrade the schema; the revision before and after.

    On SQLite and PostgreSQL alike all of it is one transaction. Raises NoSchema when the schema is newer than this
    code.
    """
    if engine.dialect.name == "sqlite":
        _keep_readers_from_waiting(engine)
    with engine.connect().execution_options(registry_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADERS})")
        before = revision(connection)
        after = planned(before)
        if before != after:
            _run("upgrade", connection, after)
    return before, after


def planned(before: str | None) -> str:
    """The revision to which `upgrade` takes a schema that is at `before`. Raises NoSchema when that is newer."""
    if before is not None and before > HEAD:
        _check(before)
    return HEAD


def _keep_readers_from_waiting(engine: Engine) -> None:
    """Switch a SQLite database to WAL: readers and the one writer then do not wait for each other. It stays so.

    SQLite's own waiting for a lock does not cover this step: of two that switch at once, one is told to try again.
    """
    deadline = time.monotonic() + _SWITCH_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _run(command: str, connection: Connection, target: str) -> None:
    from alembic import command as alembic_command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    run: Any = getattr(alembic_command, command)
    run(config, target)
