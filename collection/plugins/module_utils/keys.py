# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard keys in their one text form: base64 of 32 bytes, 44 characters."""

from __future__ import annotations

import base64
import hashlib
import os
import re

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput

# 42 free characters, then one that carries 4 bits followed by two zero bits: just what wg accepts.
KEY_PATTERN = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
ZERO_KEY = "A" * 43 + "="


def check_public_key(text: object, field: str) -> str:
    """Return `text` if it is a usable public key, else raise InvalidInput naming `field`."""
    if not isinstance(text, str) or KEY_PATTERN.fullmatch(text) is None:
        raise InvalidInput(field, "is not a WireGuard key (base64 of 32 bytes, 44 characters)")
    if text == ZERO_KEY:
        raise InvalidInput(field, "is the all-zero key, which no device can have")
    return text


def check_private_key(text: object, field: str) -> str:
    """Return the private key in clamped form (the form in which ``wg show`` gives it back).

    The message of the InvalidInput never repeats the value.
    """
    if not isinstance(text, str) or KEY_PATTERN.fullmatch(text) is None:
        raise InvalidInput(field, "is not a WireGuard private key (base64 of 32 bytes, 44 characters)")
    if text == ZERO_KEY:
        raise InvalidInput(field, "is the all-zero key, which wg takes as an order to remove the key")
    return _clamped(base64.b64decode(text))


def new_private_key() -> str:
    """A fresh private key out of the kernel's randomness, as ``wg genkey`` makes it."""
    return _clamped(os.urandom(32))


def _clamped(raw: bytes) -> str:
    # The bits that Curve25519 fixes (RFC 7748, section 5).
    data = bytearray(raw)
    data[0] &= 248
    data[31] = (data[31] & 127) | 64
    return base64.b64encode(bytes(data)).decode("ascii")


def check_preshared_key(text: object, field: str) -> str | None:
    """Return the preshared key, or None for the all-zero key and the empty text: both mean no preshared key."""
    if text == "":
        return None
    if not isinstance(text, str) or KEY_PATTERN.fullmatch(text) is None:
        raise InvalidInput(field, "is not a WireGuard preshared key (base64 of 32 bytes, 44 characters)")
    return None if text == ZERO_KEY else text


def fingerprint(secret: str | None) -> str:
    """A short name for a secret, fit for diffs: equal secrets have equal fingerprints, and none can be undone."""
    if secret is None:
        return "(none)"
    return "sha256:" + hashlib.sha256(secret.encode("ascii", "replace")).hexdigest()[:12]
