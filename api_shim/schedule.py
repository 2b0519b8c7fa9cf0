"""A look at the whole fleet every so often (VPNFLEET_DRIFT_INTERVAL).

When one is due, the registry says, and it is recorded in the same transaction: of several replicas one does it, and a
restart neither forgets nor repeats one. The worker asks in each of its turns; that thread is watched (`/readyz`).
"""

from __future__ import annotations

import time
from datetime import timedelta

import structlog

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError

#: Who asks for them, in the audit.
ACTOR = "schedule"
#: Seconds after which it is tried again when the registry could not be asked.
_PAUSE = 5.0

log = structlog.stdlib.get_logger("api_shim")


class Schedule:
    """When to look at the fleet; `interval` is in seconds, and 0 means never."""

    def __init__(self, registry: Registry, interval: float) -> None:
        self._registry = registry
        self._interval = timedelta(seconds=interval)
        # By the monotonic clock: until then the registry need not be asked.
        self._next = 0.0

    def turn(self) -> None:
        """Record a look if one is due. Raises nothing: what goes wrong is logged, and tried again."""
        if not self._interval or time.monotonic() < self._next:
            return
        try:
            wait = self._ask()
        except RegistryError as error:
            log.warning("the registry cannot be asked whether a look at the fleet is due", reason=str(error))
            wait = _PAUSE
        except Exception:
            log.exception("a look at the fleet could not be recorded")
            wait = _PAUSE
        self._next = time.monotonic() + wait

    def _ask(self) -> float:
        with self._registry.write() as session:
            wait = looks.due_in(session, self._interval)
            if wait > timedelta(0):
                return wait.total_seconds()
            queue.submit(session, "drift", {}, ACTOR)
        return self._interval.total_seconds()
