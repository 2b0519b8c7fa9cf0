# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file with the node's secrets: one a line, the newest first. Several are valid at once, so that a secret can be
changed without a moment in which neither the old nor the new one is."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import Callable, Optional, Tuple

SHORTEST_SECRET = 32  # characters
LONGEST_SECRET = 1024
MOST_SECRETS = 8

Signs = Tuple[int, int, int]


class BadSecrets(Exception):
    """The file cannot be used; the message never repeats what is in it."""


def read_secrets(path: str) -> Tuple[str, ...]:
    """The secrets of a file. Raises BadSecrets."""
    try:
        # Whatever lies there, opening it waits for nobody.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _require_private(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read((LONGEST_SECRET + 2) * MOST_SECRETS + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadSecrets(f"{path} is a symbolic link, and must be the file itself") from None
        raise BadSecrets(f"{path} cannot be read: {error.strerror}") from None
    try:
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        raise BadSecrets(f"{path} holds something else than ASCII") from None
    secrets = tuple(line for line in lines if line)
    if not 1 <= len(secrets) <= MOST_SECRETS:
        raise BadSecrets(f"{path} must hold 1 to {MOST_SECRETS} secrets, one a line")
    if any(not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET for secret in secrets):
        raise BadSecrets(f"each secret in {path} must have {SHORTEST_SECRET} to {LONGEST_SECRET} characters")
    return secrets


def _require_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadSecrets(f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise BadSecrets(f"{path} belongs to neither root nor the agent's user (user {status.st_uid} has it)")
    if status.st_mode & 0o077:
        raise BadSecrets(f"{path} must be a file that nobody but its owner may read (mode 0600)")


class SecretFile:
    """The secrets as the file says them now. A file that cannot be used any more changes nothing: the secrets from
    before stay valid, and the reason is told."""

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        """Raises BadSecrets."""
        self._path = path
        self._tell = tell
        self._lock = threading.Lock()
        self._signs = self._look()
        self._secrets = read_secrets(path)

    def current(self) -> Tuple[str, ...]:
        """The secrets that are valid, newest first; the file is read again when it has changed."""
        with self._lock:
            signs = self._look()
            if signs != self._signs:
                self._read(signs)
            return self._secrets

    def reload(self) -> None:
        """Read the file again, whether it seems to have changed or not."""
        with self._lock:
            self._read(self._look())

    def _look(self) -> Optional[Signs]:
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self, signs: Optional[Signs]) -> None:
        self._signs = signs
        try:
            self._secrets = read_secrets(self._path)
        except BadSecrets as error:
            self._tell(f"{error}; the secrets from before stay valid")
        else:
            self._tell(f"{len(self._secrets)} secrets read")
