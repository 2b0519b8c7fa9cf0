# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs an operation: a process, and whether it is still there.

A run that was killed cannot say so. On the same machine its process is looked for; elsewhere its lease must run out.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import now

#: Seconds; whoever starts a run and goes on telling that it is alive sets less.
VARIABLE = "VPNFLEET_LEASE_SECONDS"
LEASE = timedelta(minutes=15)
_PR_SET_PDEATHSIG = 1


def process_token(pid: int) -> str:
    """What tells this process from all others, here and elsewhere, now and later."""
    return json.dumps({"machine": _machine(), "pid": pid, "started": _started(pid)})


def lease() -> datetime:
    """Until when a run that begins or goes on now may be believed to be alive."""
    seconds = os.environ.get(VARIABLE, "")
    return now() + (timedelta(seconds=int(seconds)) if seconds.isdecimal() else LEASE)


def end_with_parent() -> None:
    """Let this process, a worker of Ansible's, be killed when its playbook is. Ansible makes each worker a session of
    its own: it would go on, and might begin on a node after the next run has ended there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Held(Protocol):
    """What has an owner: an operation, or a row of its columns."""

    @property
    def owner(self) -> str | None:
        """Its token."""

    @property
    def lease_until(self) -> datetime | None:
        """Until when it is believed, if nobody can ask it."""


def is_alive(operation: Held) -> bool:
    """Whether the run that holds the operation is still at work."""
    try:
        owner = json.loads(operation.owner or "{}")
    except ValueError:
        owner = {}
    if owner.get("machine") == _machine() and isinstance(owner.get("pid"), int):
        started = _started(owner["pid"])
        return started is not None and started == owner.get("started")
    return operation.lease_until is not None and operation.lease_until > now()


def _machine() -> str:
    """This boot of this machine, and which processes can be seen from here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it leads to no file


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is not there or only waits to be reaped."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
