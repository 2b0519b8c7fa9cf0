# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How operations end, in the words and with the codes of the HTTP contract."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import Any, TypeVar

Entry = TypeVar("Entry")

#: What a run publishes of one kind may be so long, in characters of JSON: it is in two places of an event, and a runner
#: drops one of more than 700,000.
MOST_CHARACTERS = 250_000
_CUTS = (2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1, 0)


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


def fit(reports: Sequence[dict[str, Any]], characters: int, lists: Iterable[str]) -> list[dict[str, Any]]:
    """The reports with their `lists` cut short, each to the same number of entries at the most, so that they take no
    more than so many characters. Where something is cut, `truncated` is true."""
    cut: list[dict[str, Any]] = []
    for most in _CUTS:
        cut = [_shortened(one, most, lists) for one in reports]
        if len(json.dumps(cut)) <= characters:
            break
    return cut


def bounded(entries: Sequence[Entry], characters: int) -> list[Entry]:
    """The first of them, as many as take no more than so many characters."""
    sizes = accumulate(len(json.dumps(one)) for one in entries)
    fitting = takewhile(lambda each: each[1] <= characters, zip(entries, sizes, strict=True))
    return [one for one, _size in fitting]


def _shortened(one: dict[str, Any], most: int, lists: Iterable[str]) -> dict[str, Any]:
    cut, left = dict(one), most
    for name in lists:
        if len(one[name]) > left:
            cut[name] = one[name][:left]
            cut["truncated"] = True
        left -= len(cut[name])
    return cut
