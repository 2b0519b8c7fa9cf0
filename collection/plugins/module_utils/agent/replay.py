# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signatures that were accepted, remembered for as long as their timestamps could be accepted again.

They stand in a file, on disk before the request is carried out: whoever makes the agent or its node crash gains nothing
by it. To refuse all that was signed before a restart would not do, since a client's clock may be ahead of the agent's.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from typing import Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.signatures import WINDOW

MOST_REMEMBERED = 100_000
_LINE = re.compile(r"([0-9]{1,12}) ([0-9a-f]{64})")
_HORIZON = re.compile(r"horizon ([0-9]{1,12})")


class CannotRemember(Exception):
    """A signature could not be remembered, so its request must not be carried out."""


class Replay:
    """What was accepted. For any number of threads; a second agent on the same folder is refused."""

    def __init__(self, folder: str) -> None:
        """Raises CannotRemember when the folder cannot be used."""
        try:
            self._open(folder)
        except OSError as error:
            raise CannotRemember(f"{folder} cannot be used: {error.strerror}") from None

    def _open(self, folder: str) -> None:
        os.makedirs(folder, 0o700, exist_ok=True)
        self._path = os.path.join(folder, "accepted")
        self._guard = os.open(
            os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._guard)
            raise CannotRemember(f"another agent uses {folder}") from None
        self._lock = threading.Lock()
        self._accepted: Dict[str, int] = {}
        self._horizon = 0  # what has been forgotten was signed then or earlier
        self._file = -1
        self._whole = False  # whether all that was accepted is in the file, and nothing but whole lines
        self._lines = 0
        self._load()
        self._write_anew()
        if self._horizon >= time.time() - WINDOW:
            self._tell_of_the_clock()

    def accept(self, signature: str, timestamp: str, now: float) -> bool:
        """Remember a signature that is right; False when it was seen before, or may have been.

        Raises CannotRemember when that is not possible: then the request must not be carried out."""
        with self._lock:
            if signature in self._accepted:
                return False
            if int(timestamp) <= self._horizon:
                # What is forgotten is too old by WINDOW, so this is timely by another clock than it was then.
                self._tell_of_the_clock()
                return False
            if len(self._accepted) >= MOST_REMEMBERED or self._lines >= 2 * MOST_REMEMBERED:
                self._forget(now)
                if len(self._accepted) >= MOST_REMEMBERED:
                    raise CannotRemember(f"more than {MOST_REMEMBERED} requests within {2 * WINDOW} s")
                self._whole = False
            if not self._whole:
                try:
                    self._write_anew()
                except OSError as error:
                    raise CannotRemember(f"{self._path} cannot be written: {error.strerror}") from None
            self._append(f"{timestamp} {signature}\n".encode("ascii"))
            self._accepted[signature] = int(timestamp)
            return True

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._file)
        os.close(self._guard)

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "no space left")
            os.fdatasync(self._file)
        except OSError as error:
            # Behind half a line the next one would not be found again, and what is not on disk now may never be.
            self._whole = False
            raise CannotRemember(f"{self._path} cannot be written: {error.strerror}") from None
        self._lines += 1

    def _tell_of_the_clock(self) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._horizon))
        tell(
            f"the clock was set back: what was signed until {until} UTC is refused, for it may have been accepted and "
            f"forgotten. Set the clock right, or if it is: stop the agent, change its secrets, remove {self._path} "
            "and start it again"
        )

    def _load(self) -> None:
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            horizon, entry = _HORIZON.fullmatch(line), _LINE.fullmatch(line)
            if horizon:
                self._horizon = max(self._horizon, int(horizon.group(1)))
            elif entry:
                self._accepted[entry.group(2)] = int(entry.group(1))

    def _forget(self, now: float) -> None:
        """Forget what is too old to be accepted again, and keep how old that was: should the clock be set back, it
        is still refused."""
        for signature, timestamp in list(self._accepted.items()):
            if timestamp < now - WINDOW:
                del self._accepted[signature]
                self._horizon = max(self._horizon, timestamp)

    def _write_anew(self) -> None:
        lines = [f"horizon {self._horizon}\n"]
        lines += [f"{timestamp} {signature}\n" for signature, timestamp in self._accepted.items()]
        data = "".join(lines).encode("ascii")
        temporary = self._path + ".new"
        descriptor = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND,
            0o600,
        )
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(descriptor)
            os.replace(temporary, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._lines = descriptor, len(lines)
        folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._whole = True
