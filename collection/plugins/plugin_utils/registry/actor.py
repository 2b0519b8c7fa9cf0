# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks for something, for the audit."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import Any


def actor(task_vars: Mapping[str, Any]) -> str:
    """VPNFLEET_ACTOR, else the AWX user who launched the job, else who is logged in."""
    for name in (
        os.environ.get("VPNFLEET_ACTOR"),
        task_vars.get("awx_user_name"),
        task_vars.get("tower_user_name"),
        os.environ.get("SUDO_USER"),
    ):
        if isinstance(name, str) and name:
            return "".join(name)[:255]
    try:
        return getpass.getuser()[:255]
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"uid {os.getuid()}"
