# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the node is: versions, and its interfaces in numbers. No key is read, so none can be told."""

from __future__ import annotations

import os
import platform
import re
import time
from typing import Any, Dict, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.version import VERSION
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import find, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed, WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import HERE

MOST_INTERFACES = 1000
SECONDS = 5.0  # for each command: whoever asks for health wants to know soon
MODULE = "/sys/module/wireguard/version"  # of the kernel's own
# Of one interface, for instance of a wireguard-go that was killed; wg goes on with the others.
_UNREADABLE = re.compile(r"^Unable to access interface ", re.MULTILINE)


def health() -> Dict[str, Any]:
    """The answer of ``GET /v1/health``. Raises WireGuardError when wg fails or does not answer in SECONDS."""
    interfaces: Dict[str, Dict[str, Any]] = {}
    for line in _shown_by_wg("listen-port"):
        name, _tab, port = line.partition("\t")
        interfaces[name] = {
            "name": name,
            "up": _is_up(name),
            "listen_port": int(port) if port.isdigit() else None,
            "peers": 0,
            "latest_handshake": 0,
            "implementation": "wireguard-go" if HERE.has_socket(name) else "kernel",
        }
    for line in _shown_by_wg("latest-handshakes"):
        name, _key, latest = (*line.split("\t"), "", "")[:3]
        if name in interfaces and latest.isdigit():
            interfaces[name]["peers"] += 1
            interfaces[name]["latest_handshake"] = max(interfaces[name]["latest_handshake"], int(latest))
    listed: List[Dict[str, Any]] = [interfaces[name] for name in sorted(interfaces)]
    return {
        "status": "ok",
        "time": int(time.time()),
        "versions": {
            "agent": VERSION,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "wireguard_tools": _version(["wg", "--version"]),
            "wireguard_module": _module(),
            "wireguard_go": _version(["wireguard-go", "--version"]) if find("wireguard-go") else None,
        },
        "interface_count": len(listed),
        "interfaces": listed[:MOST_INTERFACES],
        "truncated": len(listed) > MOST_INTERFACES,
    }


def _shown_by_wg(what: str) -> List[str]:
    argv = ["wg", "show", "all", what]
    result = run(argv, check=False, timeout=SECONDS)
    if result.returncode != 0 and not _UNREADABLE.search(result.stderr):
        raise CommandFailed(" ".join(argv), result.returncode, result.stderr)
    return result.stdout.splitlines()


def _is_up(name: str) -> bool:
    try:
        with open(os.path.join("/sys/class/net", name, "flags"), encoding="ascii") as file:
            return bool(int(file.read(), 16) & 1)
    except (OSError, ValueError):
        return False


def _version(argv: List[str]) -> str:
    """The first word of a program's answer that begins with a digit, or with v and a digit."""
    try:
        result = run(argv, timeout=SECONDS)
    except WireGuardError:
        return "unknown"
    for word in f"{result.stdout} {result.stderr}".split():
        if word.lstrip("v")[:1].isdigit():
            return word.lstrip("v")[:40]
    return "unknown"


def _module() -> Any:
    """The version of the kernel's WireGuard; None where there is none, or where it is loaded at the first use."""
    try:
        with open(MODULE, encoding="ascii") as file:
            return file.read().strip()[:40]
    except OSError:
        return None
