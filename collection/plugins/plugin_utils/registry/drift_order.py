# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which the entries of a report on drift stand, so that two reports can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What may be wrong with an interface, the graver the earlier.
FIELDS = ("interface", "public_key", "listen_port", "addresses", "mtu", "enabled at boot", "file")
_INTERFACE = re.compile(r"wg(\d{1,18})")


def place(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """By the interfaces' numbers, then as a person looks for it."""
    interface = str(entry["interface"])
    number = _INTERFACE.fullmatch(interface)
    field, name = entry.get("field"), str(entry.get("name") or "")
    return (
        int(number[1]) if number else -1,
        interface,
        FIELDS.index(field) if field in FIELDS else len(FIELDS),
        name.casefold(),
        name,
        str(entry.get("public_key", "")),
    )
