# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard key pairs, made on the controller."""

from __future__ import annotations

from base64 import b64decode, b64encode

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import new_private_key


def new_key_pair() -> tuple[str, str]:
    """A fresh private key, as ``wg genkey`` makes it, and its public key."""
    private = new_private_key()
    public = X25519PrivateKey.from_private_bytes(b64decode(private)).public_key().public_bytes_raw()
    return private, b64encode(public).decode("ascii")
