# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with secrets, replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
from typing import Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError

MODE = 0o600


def read_text(path: str) -> Optional[str]:
    """The text of `path`, or None when there is no such file. Raises WireGuardError for what is no readable file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WireGuardError(f"{path} cannot be read: {error.strerror}") from None


def is_private(path: str) -> bool:
    """Whether `path` is a regular file of ours that nobody else may read."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == MODE
        and status.st_uid == os.geteuid()
    )


def temporary_path(path: str) -> str:
    """Where the new text stands before it takes its place. Always the same name, so that what a killed run left
    is overwritten by the next one and found by a removal."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.vpnfleet-new")


def write(path: str, text: str) -> None:
    """Put `text` at `path` with mode 0600: complete and on disk, or the old file is untouched.

    Raises WireGuardError with the reason (a full disk, a read-only one, no folder)."""
    folder = os.path.dirname(path)
    temporary = temporary_path(path)
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o700, exist_ok=True)
        if os.path.isdir(path) and not os.path.islink(path):
            raise IsADirectoryError(21, "is a directory")
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, MODE)
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise WireGuardError(f"{path} cannot be written: {error.strerror}") from None


def remove(path: str) -> None:
    """Remove `path` and what a killed run may have left beside it; nothing there is fine."""
    try:
        _unlink(temporary_path(path))
        _unlink(path)
        if os.path.isdir(os.path.dirname(path)):
            _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise WireGuardError(f"{path} cannot be removed: {error.strerror}") from None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
