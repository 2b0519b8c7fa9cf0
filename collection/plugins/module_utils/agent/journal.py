# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent tells of itself: lines on stderr, for systemd's journal. Never a body, never a secret."""

from __future__ import annotations

import sys


def tell(text: str) -> None:
    """Write one line. A journal that takes nothing more stops nothing."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[:1000])
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        pass
