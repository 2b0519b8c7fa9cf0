# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What interfaces leave on a node besides themselves: a config file, and a unit that brings them up at boot."""

from __future__ import annotations

import os
import re
from glob import glob
from typing import Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import DEFAULT_CONFIG_DIR

ENABLED, FILE = "enabled at boot", "file"
# `systemctl enable` makes a link in one of these folders, and that is all that "enabled" means: it is read without
# asking systemd, which names no instances of a template that it has not loaded.
_UNITS = ("/etc/systemd/system", "/run/systemd/system")
_UNIT = re.compile(r"wg-quick@([A-Za-z0-9_=+.-]{1,15})\.service")
_FILE = re.compile(r"([A-Za-z0-9_=+.-]{1,15})\.conf")


def traces(config_dir: str = DEFAULT_CONFIG_DIR) -> Dict[str, str]:
    """By the interface's name what there is: ENABLED (with a file or without), or FILE alone.

    The folder of the files may be missing. Raises OSError when it is there and cannot be read.
    """
    found: Dict[str, str] = {}
    if os.path.isdir(config_dir):
        for entry in os.listdir(config_dir):
            match = _FILE.fullmatch(entry)
            if match:
                found[match.group(1)] = FILE
    if config_dir == DEFAULT_CONFIG_DIR:  # wg-quick@ looks into no other
        for folder in _UNITS:
            for path in glob(f"{folder}/*.wants/wg-quick@*.service"):
                match = _UNIT.fullmatch(os.path.basename(path))
                if match:
                    found[match.group(1)] = ENABLED
    return found
