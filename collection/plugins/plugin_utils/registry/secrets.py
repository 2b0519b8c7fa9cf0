# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets at rest: encrypted by Fernet (AES-128-CBC and HMAC-SHA256), with keys that can be rotated.

The keys come from VPNFLEET_ENCRYPTION_KEY, separated by commas: the first encrypts, all decrypt.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Connection, Dialect, Text, text
from sqlalchemy.types import TypeDecorator

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable

VARIABLE = "VPNFLEET_ENCRYPTION_KEY"

# Where there is no instance yet, that of any agent.
_NEWEST = (
    "SELECT coalesce((SELECT private_key FROM instance ORDER BY id DESC LIMIT 1), "
    "(SELECT coalesce(agent_secret, agent_secret_next) FROM node "
    "WHERE coalesce(agent_secret, agent_secret_next) IS NOT NULL LIMIT 1))"
)

_keys: Sequence[str] = ()
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
        return None if value is None else decrypted(value)


def decrypted(value: str) -> str:
    """What a column of that kind holds. Raises NotUsable when no key fits."""
    try:
        return cipher().decrypt(value).decode()
    except InvalidToken:
        raise _wrong_key() from None


def cipher() -> MultiFernet:
    """What the registry of this process encrypts with. Raises NotUsable before `use`."""
    if _cipher is None:
        raise NotUsable("the registry has not been opened")
    return _cipher


def use(keys: Sequence[str]) -> None:
    """Encrypt with the first of `keys` and decrypt with any from now on. Raises NotUsable for what is no key."""
    global _cipher, _keys
    if not keys:
        raise NotUsable(f"{VARIABLE} holds no key")
    try:
        _cipher = MultiFernet([Fernet(key) for key in keys])
        _keys = tuple(keys)
    except ValueError:
        raise NotUsable(
            f"{VARIABLE} holds something else than Fernet keys (32 bytes in URL-safe base64, separated by commas)"
        ) from None


def keys_from_environment() -> list[str]:
    """The keys of VPNFLEET_ENCRYPTION_KEY; none when it is not set."""
    return [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]


def keys_from_file(path: Path) -> list[str]:
    """The keys in a file, one per line; the file is made, with a fresh key, where there is none. Raises OSError."""
    if not path.exists():
        _make_key_file(path)
    return [line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]


def _make_key_file(path: Path) -> None:
    """Make it whole or not at all, and only once: who comes second must not find it empty, nor make another."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()


def renewed(token: str) -> str | None:
    """What was encrypted by any of the keys, encrypted by the first; None when it is already. Raises NotUsable."""
    multi = cipher()
    try:
        Fernet(_keys[0]).decrypt(token)
    except InvalidToken:
        pass
    else:
        return None
    try:
        return multi.rotate(token.encode("ascii")).decode("ascii")
    except InvalidToken:
        raise _wrong_key() from None


def prove(connection: Connection) -> None:
    """Make sure, by the newest secret there is, that the keys are the registry's: with a wrong one, new secrets would
    be written that the right one cannot read. Raises NotUsable."""
    token = connection.execute(text(_NEWEST)).scalar()
    if token is None:
        return
    try:
        cipher().decrypt(token)
    except InvalidToken:
        raise _wrong_key() from None


def _wrong_key() -> NotUsable:
    return NotUsable(
        f"the secrets in the registry were encrypted with another key than those of {VARIABLE} (or, without that "
        "variable, of the key file beside a SQLite database)"
    )
