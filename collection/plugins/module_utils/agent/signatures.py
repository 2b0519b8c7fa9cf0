# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed requests: what is signed, how, and whether a signature is right.

The signature is the HMAC-SHA256 of ``METHOD|path|body|timestamp`` in lowercase hex. `path` is what stands in the
request line, with the query string if there is one; `body` is the raw bytes; `timestamp` is Unix seconds in digits.
The path must not hold a ``|`` and the timestamp is digits only, so that no other request has the same text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Dict, Iterable, Union

SIGNATURE_HEADER = "X-Signature"
TIMESTAMP_HEADER = "X-Timestamp"
# A timestamp may be so far from the agent's clock, either way; for as long a signature is remembered.
WINDOW = 300  # seconds

Bytes = Union[bytes, bytearray]

_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def sign(secret: str, method: str, path: str, body: Bytes, timestamp: Union[int, str]) -> str:
    """The signature of a request. Raises ValueError for a path or a timestamp that cannot be signed."""
    if "|" in path:
        raise ValueError("a path with | in it cannot be signed")
    if _TIMESTAMP.fullmatch(str(timestamp)) is None:
        raise ValueError("a timestamp is Unix seconds in digits")
    digest = hmac.new(secret.encode("utf-8"), f"{method}|{path}|".encode(), hashlib.sha256)
    digest.update(body)
    digest.update(f"|{timestamp}".encode("ascii"))
    return digest.hexdigest()


def headers(secret: str, method: str, path: str, body: Bytes, timestamp: Union[int, str]) -> Dict[str, str]:
    """The two headers of a signed request."""
    return {
        SIGNATURE_HEADER: sign(secret, method, path, body, timestamp),
        TIMESTAMP_HEADER: str(timestamp),
    }


def well_formed(signature: str, path: str, timestamp: str) -> bool:
    """Whether this may be a signed request at all, as far as one can say without a secret."""
    return (
        _SIGNATURE.fullmatch(signature) is not None
        and _TIMESTAMP.fullmatch(timestamp) is not None
        and "|" not in path
    )


def timely(timestamp: str, now: float) -> bool:
    """Whether a timestamp, in digits, is within WINDOW of `now`."""
    return abs(int(timestamp) - now) <= WINDOW


def verify(
    secrets: Iterable[str], signature: str, method: str, path: str, body: Bytes, timestamp: str
) -> bool:
    """Whether one of `secrets` made the signature. Compared in constant time; which secret it was may show in the time
    that is taken, and is no secret."""
    if not well_formed(signature, path, timestamp):
        return False
    return any(
        hmac.compare_digest(sign(secret, method, path, body, timestamp), signature) for secret in secrets
    )
