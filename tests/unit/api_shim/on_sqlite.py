"""For what is settled before the database is asked for anything: the registry is on SQLite alone."""

from __future__ import annotations

import pytest


@pytest.fixture
def registry_url(sqlite_registry_url: str) -> str:
    """Taken into a module by assignment, it stands in the place of the one that is on both databases."""
    return sqlite_registry_url
