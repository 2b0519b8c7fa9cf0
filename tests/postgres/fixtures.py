"""The databases that tests ask for: `database_url` for SQLite and PostgreSQL in turn, `postgres_url` for the latter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    make_engine,
    parse_url,
)
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
    """One database for all tests with a controller: the schema takes longer than most of them."""
    name = postgres_server.create_database()
    upgrade(make_engine(parse_url(postgres_server.url(name))))
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to copy."""
    path = tmp_path_factory.mktemp("schema") / "registry.sqlite3"
    path.touch()
    upgrade(make_engine(parse_url(f"sqlite:///{path}")))
    return path


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
