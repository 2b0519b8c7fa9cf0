"""The databases that tests ask for: `database_url` for an empty one on SQLite and on PostgreSQL in turn, `registry_url`
for one with the registry's schema; and either of them alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    make_engine,
    parse_url,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.schema import upgrade
from tests.postgres.server import PostgresError, PostgresServer, throw_away_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server that the tests of a session (with pytest-xdist: of a worker) share: not to be stopped."""
    with _server() as server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server of the test's own, to stop, to kill and to start again."""
    with _server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy's URL of an empty PostgreSQL database, the test's own."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy's URL of an SQLite database, the test's own, whose file is not there yet."""
    return f"sqlite:///{tmp_path}/registry.sqlite3"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's URL of an empty database: whatever uses this runs once on SQLite and once on PostgreSQL."""
    # By name, so that a run of the SQLite half starts no server.
    url = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    assert isinstance(url, str)
    return url


@pytest.fixture(scope="session")
def postgres_with_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """One database for all tests with a registry: the schema takes longer than most of them. Who has written into it
    leaves it empty."""
    name = postgres_server.create_database()
    upgrade(make_engine(parse_url(postgres_server.url(name))))
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def _emptying(postgres_with_schema: str) -> Iterator[Callable[[], None]]:
    """Removes all rows, by one connection and one message: it is done after every other test."""
    engine = make_engine(parse_url(postgres_with_schema), pooled=True)
    everything = "; ".join(f'DELETE FROM "{table.name}"' for table in reversed(Base.metadata.sorted_tables))  # noqa: S608

    def empty() -> None:
        with engine.connect().execution_options(no_parameters=True) as connection, connection.begin():
            connection.exec_driver_sql(everything)

    yield empty
    engine.dispose()


@pytest.fixture
def postgres_registry_url(postgres_with_schema: str, _emptying: Callable[[], None]) -> Iterator[str]:
    """SQLAlchemy's URL of a PostgreSQL database with the registry's schema and no rows. Ids go on from test to test."""
    yield postgres_with_schema
    _emptying()


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to copy."""
    path = tmp_path_factory.mktemp("schema") / "registry.sqlite3"
    path.touch()
    upgrade(make_engine(parse_url(f"sqlite:///{path}")))
    return path


@pytest.fixture
def sqlite_registry_url(sqlite_with_schema: Path, tmp_path: Path) -> str:
    """SQLAlchemy's URL of an SQLite database with the registry's schema and no rows, the test's own."""
    shutil.copy(sqlite_with_schema, tmp_path / "registry.sqlite3")
    return f"sqlite:///{tmp_path}/registry.sqlite3"


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's URL of a registry with nothing in it: once on SQLite and once on PostgreSQL."""
    names = {"sqlite": "sqlite_registry_url", "postgresql": "postgres_registry_url"}
    url = request.getfixturevalue(names[request.param])
    assert isinstance(url, str)
    return url


@contextmanager
def _server() -> Iterator[PostgresServer]:
    """Without PostgreSQL a test fails: skipped, it would hide that half of what it shows is not shown."""
    try:
        with throw_away_server() as server:
            yield server
            return
    except PostgresError as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)
