# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the schema and bringing it up to date, by Alembic. What every run needs is a look at one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable

#: The revision that this code works with: the newest in migrations/versions.
HEAD = "0001"
MIGRATIONS = Path(__file__).with_name("migrations")
# Two runs that find an old schema at the same moment upgrade it once.
_UPGRADERS = 0x76706E67


def revision(connection: Connection) -> str | None:
    """The schema's revision; None where there is none at all."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def require(engine: Engine) -> None:
    """Make sure that the schema is the one of this code; an empty SQLite database gets it. Raises NotUsable."""
    with engine.connect() as connection, connection.begin():
        found = revision(connection)
    if found == HEAD:
        return
    if found is None and engine.dialect.name == "sqlite":
        upgrade(engine)
        return
    if found is None:
        raise NotUsable("the registry has no schema yet: run playbooks/registry.yml")
    raise NotUsable(
        f"the registry's schema is at revision {found} and this version works with {HEAD}: "
        + (
            "run playbooks/registry.yml"
            if found < HEAD
            else "use the version that upgraded it, or a newer one"
        )
    )


def upgrade(engine: Engine, check: bool = False) -> tuple[str | None, str]:
    """Make or upgrade the schema; the revision before and after. With `check` nothing is changed.

    On SQLite and PostgreSQL alike all of it is one transaction. Raises NotUsable when the schema is newer than this
    code.
    """
    if engine.dialect.name == "sqlite" and not check:
        with engine.connect() as connection:
            # It stays with the file. Readers and the one writer then do not wait for each other.
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.connect().execution_options(registry_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADERS})")
        before = revision(connection)
        if before is not None and before > HEAD:
            raise NotUsable(
                f"the registry's schema is at revision {before}, newer than this version's {HEAD}"
            )
        if before != HEAD and not check:
            _run("upgrade", connection, HEAD)
    return before, HEAD


def _run(command: str, connection: Connection, target: str) -> None:
    from alembic import command as alembic_command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    run: Any = getattr(alembic_command, command)
    run(config, target)
