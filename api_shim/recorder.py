"""Many requests that write at once: whoever has its turn writes for all that wait, in one transaction.

The registry has one writer at a time. A burst of requests that each took their turn would keep the playbooks from
theirs, and each would wait for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry

_MOST = 100  # written in one transaction

Written = TypeVar("Written")


@dataclass
class _Item:
    work: Callable[[Session], Any]
    done: bool = False
    value: Any = None
    error: Exception | None = None


class Recorder:
    """Writes to a registry on behalf of many threads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiting: list[_Item] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def write(self, work: Callable[[Session], Written]) -> Written:
        """What `work` returns, when it is committed. Raises what `work` does, rolled back alone, and NotUsable."""
        item = _Item(work)
        with self._lock:
            self._waiting.append(item)
        with self._turn:
            while not item.done:
                with self._lock:
                    batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                self._write(batch)
        if item.error is not None:
            raise item.error
        value: Written = item.value
        return value

    def _write(self, batch: list[_Item]) -> None:
        try:
            with self._registry.write() as session:
                for item in batch:
                    _try(session, item)
        except Exception as error:
            # Nothing of it is there, whatever became of each.
            for item in batch:
                item.error = error
        finally:
            for item in batch:
                item.done = True


def _try(session: Session, item: _Item) -> None:
    try:
        with session.begin_nested():
            item.value = item.work(session)
            session.flush()
    except DBAPIError as error:
        if not isinstance(error, IntegrityError):
            raise  # the connection itself
        item.error = error
    except Exception as error:
        item.error = error
