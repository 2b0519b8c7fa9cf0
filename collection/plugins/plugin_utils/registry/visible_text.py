# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts from outside as a person sees them."""

from __future__ import annotations

import unicodedata

# Joiners belong to letters and pictures.
_HARMLESS = "\u200c\u200d"


def visible(text: str, longest: int = 300) -> str:
    """A text of bounded length in which whatever cannot be seen, moves the cursor or turns the letters around it is
    spelt out."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(one if _is_seen(one) else f"\\u{ord(one):04x}" for one in cut)


def _is_seen(one: str) -> bool:
    category = unicodedata.category(one)
    return one in _HARMLESS or category == "Zs" or category[0] not in "CZ"
