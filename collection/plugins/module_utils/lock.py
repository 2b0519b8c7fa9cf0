# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writer per interface. The kernel lets go of a lock when its holder ends, however it ends.

The lock file says what its holder has begun and not ended yet: so the next one knows what a killed run left.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError

FOLDER = "/run/vpnfleet"
WAIT = 60.0  # seconds


def lock_path(interface: str) -> str:
    """The lock file of an interface."""
    return os.path.join(FOLDER, interface + ".lock")


def begin(interface: str, what: str) -> None:
    """Note what is begun, in one word. To be called while the lock is held."""
    _note(interface, what)


def end(interface: str) -> None:
    """What was begun is done, or undone. To be called while the lock is held."""
    _note(interface, "")


def unfinished(interface: str) -> str:
    """What an earlier run has begun and not ended, as it was told to `begin`; else empty."""
    try:
        with open(lock_path(interface), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _note(interface: str, text: str) -> None:
    with open(lock_path(interface), "w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def _locked(interface: str, deadline: float) -> Iterator[None]:
    path = lock_path(interface)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise WireGuardError(
                    f"{interface} has been busy with another run for {WAIT:.0f} s; try again when that has ended"
                ) from None
            time.sleep(0.05)
            continue
        # Whoever removed the interface for good has also removed the lock file: a lock on what is no longer there
        # would keep nobody out.
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(interfaces: List[str]) -> Iterator[Dict[str, str]]:
    """Hold the locks of `interfaces`. They are taken in the order of their names, so two runs never wait for each
    other. Yields those that could not be had within WAIT seconds in all, each with what to tell of it."""
    os.makedirs(FOLDER, 0o700, exist_ok=True)
    deadline = time.monotonic() + WAIT
    busy: Dict[str, str] = {}
    with ExitStack() as stack:
        for interface in sorted(set(interfaces)):
            try:
                stack.enter_context(_locked(interface, deadline))
            except WireGuardError as error:
                busy[interface] = str(error)
        yield busy


def forget(interface: str) -> None:
    """Remove the lock file of an interface that is gone. To be called while the lock is held."""
    try:
        os.unlink(lock_path(interface))
    except FileNotFoundError:
        pass
