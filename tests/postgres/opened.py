"""Registries as the tests open them."""

from __future__ import annotations

import os
from weakref import WeakSet

from sqlalchemy import Engine, Pool, event

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)

_engines: WeakSet[Engine] = WeakSet()
_of_parents: list[Pool] = []


def opened(url: str) -> Registry:
    """The registry at a URL that has its schema.

    Its connections are used again, also where the playbooks make one for each transaction: that takes up to a quarter
    of a test's time. No test that uses this is about a power cut: SQLite need not wait until all is on the disk.
    """
    registry = open_registry(url, pooled=True)
    if registry.engine.dialect.name == "sqlite":
        event.listen(registry.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
    _engines.add(registry.engine)
    return registry


def _leave_to_the_parent() -> None:
    """A fork makes connections of its own. It holds its parent's, too: closed here, they would end there."""
    for engine in _engines:
        _of_parents.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_to_the_parent)
