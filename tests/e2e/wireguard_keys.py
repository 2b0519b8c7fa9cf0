"""WireGuard keys and peers for tests: always the same for the same name, so that a failure can be read again."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from functools import cache
from typing import Any

from tests.lab.host import ENVIRONMENT


def private_key(name: str) -> str:
    """A private key in clamped form."""
    raw = bytearray(hashlib.sha256(f"private {name}".encode()).digest())
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return base64.b64encode(bytes(raw)).decode()


@cache
def public_key(name: str) -> str:
    """The public key that belongs to private_key(name)."""
    done = subprocess.run(
        ["wg", "pubkey"],
        input=private_key(name),
        capture_output=True,
        check=True,
        text=True,
        env=ENVIRONMENT,
    )
    return done.stdout.strip()


def peer_key(name: str) -> str:
    """A public key whose private key nobody has: enough for a peer that never connects, and no process is run."""
    return base64.b64encode(hashlib.sha256(f"peer {name}".encode()).digest()).decode()


def preshared_key(name: str) -> str:
    return base64.b64encode(hashlib.sha256(f"preshared {name}".encode()).digest()).decode()


def peer(name: str, *allowed_ips: Any, **fields: Any) -> dict[str, Any]:
    """A peer of this name's key as the modules' parameters have it."""
    return {"public_key": peer_key(name), "allowed_ips": list(allowed_ips), **fields}
