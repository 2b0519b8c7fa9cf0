# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.end_front USER``: end a front that has
outlived its agent. The ExecStopPost of the agent's unit.

A front asks the kernel to end with its agent, and who has taken it over can take that back. It cannot leave the unit's
control group. There are others in it that are to live on, a wireguard-go for instance: this becomes the user whom the
front has, and so may end none of them.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Iterator, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.privileges import CannotDrop, drop

OWN_GROUPS = "/proc/self/cgroup"
# Where the groups are that systemd makes, of version 2 and 1.
_BY_SYSTEMD = {"": "/sys/fs/cgroup", "name=systemd": "/sys/fs/cgroup/systemd"}


def main(arguments: List[str]) -> int:
    """End what `arguments`, a user's name, has in this control group; returns the exit code."""
    (user,) = arguments
    try:
        drop(user)
        for pid in _processes():
            if pid != os.getpid():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
    except (CannotDrop, OSError) as error:
        tell(f"whether a front is left is not known: {error}")
        return 1
    return 0


def _processes() -> Iterator[int]:
    """What is in the control group of the unit that this process is part of."""
    with open(OWN_GROUPS, encoding="utf-8", errors="surrogateescape") as groups:
        for line in groups:
            _number, controllers, path = line.rstrip("\n").split(":", 2)
            if path == "/" or controllers not in _BY_SYSTEMD:
                continue
            # Where systemd uses version 1, the group of version 2 is not mounted here.
            processes = f"{_BY_SYSTEMD[controllers]}{path}/cgroup.procs"
            with suppress(FileNotFoundError), open(processes, encoding="ascii") as pids:
                yield from map(int, pids)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
