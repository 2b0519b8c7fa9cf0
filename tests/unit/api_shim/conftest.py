"""The real application on a real registry, once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from _pytest.logging import LogCaptureHandler
from cryptography.fernet import Fernet
from sqlalchemy import event
from starlette.testclient import TestClient

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base
from api_shim import logs
from api_shim.service import Service
from api_shim.settings import Settings
from tests.unit.api_shim.edge import Edge, make_edge


@pytest.fixture(autouse=True)
def _logging(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:  # noqa: ARG001
    """The log as it is when it is served, and as it was for the tests of others."""
    root = logging.getLogger()
    # pytest's own come and go with each phase of a test.
    before = [each for each in root.handlers if not isinstance(each, LogCaptureHandler)], root.level
    logs.configure(Settings())
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


@pytest.fixture
def settings() -> Settings:
    """The defaults; a test may have its own."""
    return Settings()


@pytest.fixture(params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Iterator[Service]:
    """An empty registry, and what serves it."""
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_with_schema"), tmp_path / "registry.sqlite3")
        registry = open_registry(f"sqlite:///{tmp_path}/registry.sqlite3", pooled=True)
        # No test here is about a power cut.
        event.listen(registry.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
    else:
        registry = open_registry(request.getfixturevalue("postgres_with_schema"), pooled=True)
    made = Service(settings, registry)
    yield made
    made.keys.close()
    with registry.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    registry.close()


@pytest.fixture
def edge(service: Service) -> Iterator[Edge]:
    """The application, a key of each scope, and a node with an instance of two peers."""
    made = make_edge(service)
    # Not as a context: the lifespan would close what the next request of a test needs.
    yield made
    assert isinstance(made.client, TestClient)
    made.client.close()
