# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units ``wg-quick@<interface>`` on nodes with systemd."""

from __future__ import annotations

import os
import shutil
from typing import Dict, List, Optional, Sequence

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import READING, find, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import DEFAULT_CONFIG_DIR
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Unit

# With this in place, starting the unit of an interface that is up leaves the interface alone; and should a killed
# run leave it behind, starting the unit of an interface that is down brings it up as ever.
_ADOPT = """[Service]
ExecStart=
ExecStart=/bin/sh -c '/sbin/ip link show dev %i >/dev/null 2>&1 || exec wg-quick up %i'
"""
# Where units and what is dropped into them stand: for good, and until the next boot.
FOR_GOOD, RUNTIME = "/etc/systemd/system", "/run/systemd/system"
# Before the names of units.
SHOW = ("systemctl", "show", "--property=Id,ActiveState,UnitFileState", "--")


def runs() -> bool:
    """Whether systemd is PID 1 of this node."""
    return os.path.isdir(RUNTIME) and find("systemctl") is not None


def unit_name(interface: str) -> str:
    """The unit of an interface."""
    return f"wg-quick@{interface}.service"


def read_units(interfaces: List[str], config_dir: str = DEFAULT_CONFIG_DIR) -> Dict[str, Optional[Unit]]:
    """The state of each interface's unit by one command. None where units have no part: no systemd, or a folder
    that wg-quick@ does not look into."""
    if not interfaces or config_dir != DEFAULT_CONFIG_DIR or not runs():
        return dict.fromkeys(interfaces)
    names = [unit_name(name) for name in interfaces]
    return parse_units(run([*SHOW, *names], timeout=READING).stdout, interfaces)


def parse_units(output: str, interfaces: Sequence[str]) -> Dict[str, Optional[Unit]]:
    """The state of each interface's unit out of what SHOW has printed."""
    found: Dict[str, Unit] = {}
    for block in output.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        found[values.get("Id", "")] = Unit(
            enabled=values.get("UnitFileState") in ("enabled", "enabled-runtime"),
            active=values.get("ActiveState") in ("active", "activating", "reloading"),
        )
    return {name: found.get(unit_name(name), Unit(False, False)) for name in interfaces}


def enable(interface: str, enabled: bool) -> None:
    """Let the unit start at boot, or not."""
    run(["systemctl", "enable" if enabled else "disable", "--quiet", unit_name(interface)])


def start(interface: str) -> None:
    """Start the unit. Raises CommandFailed with the last lines that wg-quick wrote."""
    try:
        run(["systemctl", "start", unit_name(interface)])
    except CommandFailed as error:
        log = run(
            ["journalctl", "--unit", unit_name(interface), "--lines=5", "--no-pager", "--output=cat"],
            check=False,
        )
        run(["systemctl", "reset-failed", unit_name(interface)], check=False)
        raise CommandFailed(f"systemctl start {unit_name(interface)}", error.returncode, log.stdout) from None


def stop(interface: str) -> None:
    """Stop the unit, and forget that it failed. wg-quick cannot take an interface down whose file is gone, so the
    outcome is not looked at: whoever calls this removes the interface itself afterwards."""
    run(["systemctl", "stop", unit_name(interface)], check=False)
    run(["systemctl", "reset-failed", unit_name(interface)], check=False)


def adopt(interface: str) -> None:
    """Make the unit active around an interface that is up, without touching the interface."""
    folder = os.path.join(RUNTIME, unit_name(interface) + ".d")
    os.makedirs(folder, 0o755, exist_ok=True)
    try:
        with open(os.path.join(folder, "adopt.conf"), "w", encoding="ascii") as file:
            file.write(_ADOPT)
        run(["systemctl", "daemon-reload"])
        run(["systemctl", "start", unit_name(interface)])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        run(["systemctl", "daemon-reload"])


def forget(interface: str) -> None:
    """Remove drop-ins that were made for this interface's unit."""
    for folder in (FOR_GOOD, RUNTIME):
        path = os.path.join(folder, unit_name(interface) + ".d")
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
            run(["systemctl", "daemon-reload"])
