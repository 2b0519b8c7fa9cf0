"""How often a key may call what costs the fleet something: limits in this process, kept in memory.

The headers are those of draft-ietf-httpapi-ratelimit-headers: in a policy
`q` calls in `w` seconds, and `r` of them left for `t` seconds.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import limits
from fastapi import Request
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from api_shim.problems import Problem
from api_shim.request_ids import add_header
from api_shim.routes.parameters import uuid_of

if TYPE_CHECKING:
    from api_shim.service import Service

PREFIX = "rate_limit_"

_ZERO = re.compile(r"(?<![0-9])0+(?![0-9])")

By = Literal["key", "node_id"]


def parse(text: str) -> list[limits.RateLimitItem]:
    """Limits such as `10/minute` or `2/second;100/hour`; none for an empty text. Raises ValueError."""
    if not text.strip():
        return []
    try:
        # 0 minutes would be taken for one.
        parsed = [] if _ZERO.search(text) else limits.parse_many(text)
    except ValueError:
        parsed = []
    if not parsed or any(limit.amount < 1 or limit.get_expiry() < 1 for limit in parsed):
        raise ValueError("is no limit such as 10/minute, 5/hour or 2/second;100/hour; empty means none")
    return parsed


class RateLimits:
    """The windows of one process. `settings` maps names such as `rate_limit_drift_node` to limits."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._limits = {name: parse(text) for name, text in settings.items()}
        self._lock = threading.Lock()
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    def take(self, name: str, who: Sequence[str]) -> tuple[dict[str, str], int | None]:
        """Count a call; the headers that say what is left, and the seconds to wait when it is one too many."""
        items = self._limits[name]
        if not items:
            return {}, None
        policy = name.removeprefix(PREFIX).replace("_", "-")
        with self._lock:
            # By all or by none: a call that one window refuses does not count in another.
            allowed = all(self._windows.test(item, policy, *who) for item in items)
            if allowed:
                for item in items:
                    self._windows.hit(item, policy, *who)
        left, policies, wait = [], [], 1
        for number, item in enumerate(items):
            label = policy if number == 0 else f"{policy}-{number + 1}"
            stats = self._windows.get_window_stats(item, policy, *who)
            seconds = max(1, math.ceil(stats.reset_time - time.time()))
            policies.append(f'"{label}";q={item.amount};w={item.get_expiry()}')
            left.append(f'"{label}";r={stats.remaining};t={seconds}')
            if stats.remaining == 0:
                wait = max(wait, seconds)
        headers = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}
        return headers, None if allowed else wait


def limited(setting: str, by: tuple[By, ...] = ("key",)) -> Callable[[Request], None]:
    """`count` as a dependency. It stands after `caller(…)` in a route's dependencies."""

    def depend(request: Request) -> None:
        count(request, setting, by)

    return depend


def count(request: Request, setting: str, by: tuple[By, ...] = ("key",)) -> None:
    """Count a call, by the key that bears it. `setting` is a field of Settings. Raises Problem 429 when it is one too
    many."""
    service: Service = request.app.state.service
    who = [request.state.caller.key_id if each == "key" else _node(request) for each in by]
    headers, wait = service.rate_limits.take(setting, who)
    for name, value in headers.items():
        add_header(request.scope, name, value)
    if wait is not None:
        variable = f"VPNFLEET_{setting.upper()}"
        message = f"Too many calls; try again in {wait} s ({variable} is the limit)"
        raise Problem(429, message, {"Retry-After": str(wait)})


def _node(request: Request) -> str:
    """The node of the path. All that is none shares one window: nobody fills the memory with made-up ones."""
    return uuid_of(str(request.path_params.get("node_id", ""))) or "-"
