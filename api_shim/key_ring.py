"""The keys that open the HTTP interface, as they are looked up for each request."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import or_, select, update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import ApiKey, now
from api_shim import keys

REMEMBERED = 4.0  # seconds: a revoked key opens nothing any more after that
_MARK_EVERY = timedelta(seconds=60)

log = structlog.stdlib.get_logger("api_shim")


@dataclass(frozen=True)
class Caller:
    """Who calls, by the key."""

    key_id: str
    name: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """As the audit names it."""
        return f"api:{self.name}"


@dataclass(frozen=True)
class Found:
    """A key that is in the registry."""

    caller: Caller
    state: keys.State


@dataclass(frozen=True)
class _Remembered:
    caller: Caller
    expires_at: datetime | None
    until: float


class KeyRing:
    """Looks keys up, and remembers good ones for a moment: a busy caller costs one read in four seconds."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self._marked: dict[str, datetime] = {}
        self._lock = threading.Lock()
        # A writer may have to wait for others: not at a request's expense.
        self._marker = ThreadPoolExecutor(1, thread_name_prefix="key-use")

    def remembered(self, key: str) -> Found | None:
        """The key, if it was a good one a moment ago; it asks no database."""
        hashed = keys.digest(key)
        with self._lock:
            known = self._remembered.get(hashed)
        if known is None or known.until <= self._clock():
            return None
        over = known.expires_at is not None and known.expires_at <= now()
        return Found(known.caller, "expired" if over else "active")

    def look_up(self, key: str) -> Found | None:
        """The key, whatever its state; None for what is no key of ours. Raises NotUsable."""
        if keys.KEY.fullmatch(key) is None:
            return None
        known = self.remembered(key)
        if known is not None:
            return known
        hashed = keys.digest(key)
        with self._registry.read() as session:
            row = session.scalar(select(ApiKey).where(ApiKey.key_hash == hashed))
        # The database compares hashes, not keys; how long that takes tells nothing of a key. This holds all the same
        # when a collation finds equal what is not.
        if row is None or not hmac.compare_digest(row.key_hash, hashed):
            return None
        found = Found(Caller(row.id, row.name, frozenset(row.scopes)), keys.state_of(row, now()))
        with self._lock:
            if found.state == "active":
                self._remembered[hashed] = _Remembered(
                    found.caller, row.expires_at, self._clock() + REMEMBERED
                )
            else:
                self._remembered.pop(hashed, None)
        if found.state == "active":
            self._mark(row.id, row.last_used_at)
        return found

    def close(self) -> None:
        """Write what is still to be written."""
        self._marker.shutdown(wait=True)

    def _mark(self, key_id: str, last_used_at: datetime | None) -> None:
        """Note that a key was used, once a minute at the most, later and without any harm if that fails."""
        at = now()
        with self._lock:
            last = max((time for time in (self._marked.get(key_id), last_used_at) if time), default=None)
            if last is not None and at - last < _MARK_EVERY:
                return
            self._marked[key_id] = at
        try:
            self._marker.submit(self._write_mark, key_id, at)
        except RuntimeError:  # it is being closed
            pass

    def _write_mark(self, key_id: str, at: datetime) -> None:
        try:
            with self._registry.write() as session:
                session.execute(
                    update(ApiKey)
                    .where(
                        ApiKey.id == key_id,
                        or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at - _MARK_EVERY),
                    )
                    .values(last_used_at=at)
                )
        except Exception as error:
            log.warning("that a key was used could not be noted", reason=str(error))
