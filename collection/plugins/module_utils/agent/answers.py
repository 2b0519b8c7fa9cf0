# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a call is answered with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict


@dataclass(frozen=True)
class Answer:
    """A status code, an object for the body, and headers besides the usual."""

    status: int
    body: Dict[str, Any]
    headers: Dict[str, str] = field(default_factory=dict)


def error(status: int, message: str, **headers: str) -> Answer:
    """An answer that says why not. In the names of `headers`, _ stands for -."""
    return Answer(
        status, {"error": message}, {name.replace("_", "-"): value for name, value in headers.items()}
    )
