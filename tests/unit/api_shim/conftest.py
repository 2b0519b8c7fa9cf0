"""The real application on a real registry, once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from _pytest.logging import LogCaptureHandler
from cryptography.fernet import Fernet
from starlette.testclient import TestClient

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from api_shim import logs
from api_shim.service import Service
from api_shim.settings import Settings
from tests.postgres.opened import opened
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


@pytest.fixture
def service(registry_url: str, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Service]:
    """An empty registry, and what serves it."""
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = opened(registry_url)
    made = Service(settings, registry)
    yield made
    made.keys.close()
    registry.close()


@pytest.fixture
def edge(service: Service) -> Iterator[Edge]:
    """The application, a key of each scope, and a node with an instance of two peers."""
    made = make_edge(service)
    # Not as a context: the lifespan would close what the next request of a test needs.
    yield made
    assert isinstance(made.client, TestClient)
    made.client.close()
