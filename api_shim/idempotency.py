"""Repeated calls: with an `Idempotency-Key`, the same call is answered as it was, and nothing is done twice.

draft-ietf-httpapi-idempotency-key-header. A key is its caller's own, and is kept for a day.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import IdempotencyKey
from api_shim.key_ring import Caller
from api_shim.problems import Problem

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True)
class Call:
    """A call that bears a key; `request_hash` tells it from another one with the same key."""

    api_key_id: str
    key: str
    request_hash: str


async def call_of(request: Request, who: Caller) -> Call | None:
    """The call, if it bears a key and changes something. Raises Problem 400 for a key that is none."""
    key = request.headers.get(HEADER)
    if key is None or request.method in ("GET", "HEAD"):
        return None
    if _KEY.fullmatch(key) is None:
        raise Problem(400, f"{HEADER}: is not 1 to 255 printable characters of ASCII", field=HEADER)
    digest = hashlib.sha256()
    path = request.url.path.rstrip("/")
    for part in (request.method, path, request.url.query):
        digest.update(part.encode() + b"\0")
    digest.update(await request.body())
    return Call(who.key_id, key, digest.hexdigest())


def find(session: Session, call: Call) -> IdempotencyKey | None:
    """What is known of the call. Raises Problem 422 when the key was another call's."""
    found = session.get(IdempotencyKey, (call.api_key_id, call.key))
    if found is not None and found.request_hash != call.request_hash:
        raise Problem(422, f"{HEADER}: this key was used for another call")
    return found


def answered(
    session: Session, call: Call | None, do: Callable[[], tuple[int, dict[str, Any]]]
) -> tuple[int, dict[str, Any]]:
    """Status and body of a call that is done in this transaction: by `do`, unless it was answered before."""
    known = find(session, call) if call is not None else None
    if known is not None and known.status is not None and known.answer is not None:
        return known.status, known.answer
    status, answer = do()
    if call is not None:
        session.add(
            IdempotencyKey(
                api_key_id=call.api_key_id,
                key=call.key,
                request_hash=call.request_hash,
                status=status,
                answer=answer,
            )
        )
    return status, answer


def note(session: Session, call: Call, operation_id: str) -> None:
    """Note that the call is this operation."""
    session.add(
        IdempotencyKey(
            api_key_id=call.api_key_id,
            key=call.key,
            request_hash=call.request_hash,
            operation_id=operation_id,
        )
    )


def keep(session: Session, call: Call, status: int, answer: dict[str, Any]) -> None:
    """Keep the answer, for when the call is repeated. The first one stays."""
    found = session.get(IdempotencyKey, (call.api_key_id, call.key))
    if found is not None and found.status is None:
        found.status, found.answer = status, answer
