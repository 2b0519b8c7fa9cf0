# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How operations end, in the words and with the codes of the HTTP contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """The end of an operation: the `state` of its row, and what set_stats publishes."""

    state: str  # succeeded, failed, or pending when something is still to be done
    status: str  # success, partial_success or error
    code: int  # as an HTTP status
    message: str
    details: dict[str, Any] = field(default_factory=dict)


def success(message: str, code: int = 200, **details: Any) -> Result:
    """All of it is done."""
    return Result("succeeded", "success", code, message, details)


def still_to_take_down(message: str, code: int, troubles: list[str], **details: Any) -> Result:
    """The customer is served; what is left on other nodes is the fleet's own affair."""
    warning = f"{'; '.join(troubles)}; what is left there is taken down by the node's next reconcile"
    return Result("pending", "success", code, message, {**details, "warnings": [warning]})


def partial(message: str, pending: bool, **details: Any) -> Result:
    """Some of it is done, and `details` says what not."""
    return Result("pending" if pending else "succeeded", "partial_success", 207, message, details)


def error(message: str, code: int = 500, pending: bool = False, **details: Any) -> Result:
    """It is not done; `pending` when it is still to be."""
    return Result("pending" if pending else "failed", "error", code, message, details)
