# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What interfaces leave on a node besides themselves: a config file, and a unit that brings them up at boot."""

from __future__ import annotations

import os
import re
from glob import glob
from typing import Dict, Iterable, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import DEFAULT_CONFIG_DIR

ENABLED, FILE = "enabled at boot", "file"
# `systemctl enable` makes a link in one of these folders, and that is all that "enabled" means: it is read without
# asking systemd, which names no instances of a template that it has not loaded.
UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system")
UNIT_LINKS = "*.wants/wg-quick@*.service"
_UNIT = re.compile(r"wg-quick@([A-Za-z0-9_=+.-]{1,15})\.service")
_FILE = re.compile(r"([A-Za-z0-9_=+.-]{1,15})\.conf")


def traces(config_dir: str) -> Dict[str, str]:
    """By the interface's name what there is: ENABLED (with a file or without), or FILE alone.

    The folder of the files may be missing. Raises OSError when it is there and cannot be read.
    """
    files = os.listdir(config_dir) if os.path.isdir(config_dir) else []
    links: List[str] = []
    if config_dir == DEFAULT_CONFIG_DIR:  # wg-quick@ looks into no other
        for folder in UNIT_FOLDERS:
            links += glob(f"{folder}/{UNIT_LINKS}")
    return told_by(files, links)


def told_by(files: Iterable[str], links: Iterable[str]) -> Dict[str, str]:
    """The same of the names of files in the folder of config files, and of the paths of links to units."""
    found: Dict[str, str] = {}
    for name in files:
        match = _FILE.fullmatch(name)
        if match:
            found[match.group(1)] = FILE
    for path in links:
        match = _UNIT.fullmatch(os.path.basename(path))
        if match:
            found[match.group(1)] = ENABLED
    return found
