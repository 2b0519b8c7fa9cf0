# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """``1 peer``, ``2 peers``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
