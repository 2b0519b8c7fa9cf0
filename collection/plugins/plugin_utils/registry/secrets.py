# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets at rest: encrypted by Fernet (AES-128-CBC and HMAC-SHA256), with keys that can be rotated.

The keys come from VPNFLEET_ENCRYPTION_KEY, separated by commas: the first encrypts, all decrypt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable

VARIABLE = "VPNFLEET_ENCRYPTION_KEY"

_cipher: MultiFernet | None = None


class Encrypted(TypeDecorator[str]):
    """A column of text that the database sees encrypted."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Encrypt on the way in."""
        return None if value is None else cipher().encrypt(value.encode()).decode("ascii")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Decrypt on the way out. Raises NotUsable when no key fits."""
        if value is None:
            return None
        try:
            return cipher().decrypt(value).decode()
        except InvalidToken:
            raise NotUsable(
                f"a secret in the registry was encrypted with another key than those of {VARIABLE}"
            ) from None


def cipher() -> MultiFernet:
    """What the registry of this process encrypts with. Raises NotUsable before `use`."""
    if _cipher is None:
        raise NotUsable("the registry has not been opened")
    return _cipher


def use(keys: Sequence[str]) -> None:
    """Encrypt with the first of `keys` and decrypt with any from now on. Raises NotUsable for what is no key."""
    global _cipher
    if not keys:
        raise NotUsable(f"{VARIABLE} holds no key")
    try:
        _cipher = MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise NotUsable(
            f"{VARIABLE} holds something else than Fernet keys (32 bytes in URL-safe base64, separated by commas)"
        ) from None


def keys_from_environment() -> list[str]:
    """The keys of VPNFLEET_ENCRYPTION_KEY; none when it is not set."""
    return [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]


def keys_from_file(path: Path) -> list[str]:
    """The keys in a file, one per line; the file is made, with a fresh key, where there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return [line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    key = Fernet.generate_key().decode("ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
    return [key]
