# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the node is: versions, and its interfaces in numbers. No key is read, so none can be told."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Dict, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.version import VERSION
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import find, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import HERE

MOST_INTERFACES = 1000


def health() -> Dict[str, Any]:
    """The answer of ``GET /v1/health``. Raises WireGuardError when wg does not answer."""
    interfaces: Dict[str, Dict[str, Any]] = {}
    # wg says what it could not read on stderr and goes on with the rest.
    for line in run(["wg", "show", "all", "listen-port"], check=False).stdout.splitlines():
        name, _tab, port = line.partition("\t")
        interfaces[name] = {
            "name": name,
            "up": _is_up(name),
            "listen_port": int(port) if port.isdigit() else None,
            "peers": 0,
            "latest_handshake": 0,
            "implementation": "wireguard-go" if HERE.has_socket(name) else "kernel",
        }
    for line in run(["wg", "show", "all", "latest-handshakes"], check=False).stdout.splitlines():
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


def _is_up(name: str) -> bool:
    try:
        with open(os.path.join("/sys/class/net", name, "flags"), encoding="ascii") as file:
            return bool(int(file.read(), 16) & 1)
    except (OSError, ValueError):
        return False


def _version(argv: List[str]) -> str:
    """The first word of a program's answer that begins with a digit, or with v and a digit."""
    result = run(argv, check=False)
    for word in f"{result.stdout} {result.stderr}".split():
        if word.lstrip("v")[:1].isdigit():
            return word.lstrip("v")[:40]
    return "unknown"


def _module() -> Any:
    """The version of the kernel's WireGuard; None where there is none, or where it is loaded at the first use."""
    try:
        with open("/sys/module/wireguard/version", encoding="ascii") as file:
            return file.read().strip()[:40]
    except OSError:
        return None
