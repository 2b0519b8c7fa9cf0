"""An empty registry on both databases, of which each test rolls back what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    make_engine,
    parse_url,
)
from tests.postgres.server import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One empty registry for all tests here: each rolls back what it wrote."""
    server: PostgresServer | None = None
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("allocation") / "registry.db"
        path.touch()
        url = f"sqlite:///{path}"
    else:
        server = request.getfixturevalue("postgres_server")
        assert isinstance(server, PostgresServer)
        name = server.create_database()
        url = server.url(name)
    engine = make_engine(parse_url(url))
    schema.upgrade(engine)
    secrets.use([Fernet.generate_key().decode()])
    found = Registry(engine)
    yield found
    found.close()
    if server is not None:
        server.drop_database(name)


@pytest.fixture
def session(registry: Registry) -> Iterator[Session]:
    with registry.write(keep=False) as session:
        yield session


@contextmanager
def statements(session: Session) -> Iterator[list[str]]:
    """The statements that the database gets meanwhile."""
    seen: list[str] = []
    connection = session.connection()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(connection, "before_cursor_execute", note)
