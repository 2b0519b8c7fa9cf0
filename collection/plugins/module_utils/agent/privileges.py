# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving up all rights, for the process that faces the network."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_HIGHEST_CAPABILITY = 63


class CannotDrop(Exception):
    """The rights could not be given up, so the process must not go on."""


def drop(user: str) -> None:
    """Become `user` for good: no other group, no capability, nothing that a program on disk could give back, and
    no further process or thread.

    Raises CannotDrop."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CannotDrop(f"there is no user {user}") from None
    if entry.pw_uid == 0:
        raise CannotDrop(f"{user} is root")
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No child that would be left when this process is killed.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.geteuid() == 0:
        for capability in range(_HIGHEST_CAPABILITY + 1):
            # Beyond the last one that the kernel knows, and without CAP_SETPCAP, this fails, and no harm is done.
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        try:
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        except OSError as error:
            raise CannotDrop(f"cannot become {user}: {error.strerror}") from None
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise CannotDrop("the kernel does not know no_new_privs")
    # Should the privileged process end in whatever way, this one does at once.
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != (entry.pw_gid,) * 3:
        raise CannotDrop(f"cannot become {user}")
    if _capabilities():
        raise CannotDrop("capabilities are left")


def _capabilities() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(("CapEff:", "CapPrm:", "CapInh:")) and int(line.split()[1], 16):
                return int(line.split()[1], 16)
    return 0
