"""API keys in the registry: made, listed and revoked.

A key is 32 random bytes, and only its SHA-256 is kept. A slow hash is for passwords: nobody finds 256 random bits by
trying, and each request would pay for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Invalid,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    ApiKey,
    AuditEntry,
    now,
)

#: billing: the billing system's calls, and the operations; ops: all; read: GET only.
SCOPES = ("billing", "ops", "read")
PREFIX = "vpf_"  # so that scanners for secrets know one, and the log hides it
KEY = re.compile(r"vpf_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

State = Literal["active", "expired", "revoked"]


def create(
    session: Session, name: str, scopes: Sequence[str], expires_at: datetime | None, actor: str
) -> str:
    """Make a key and return it; it is nowhere else. Raises Invalid or Conflict."""
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            "name",
            f"{shown(name)} is not a key's name: letters, digits and ._- with a letter or a digit first, 64 at most",
        )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise Invalid("scopes", f"one or more of {', '.join(SCOPES)} are needed")
    if expires_at is not None and expires_at <= now():
        raise Invalid("expires", "is in the past")
    if find(session, name) is not None:
        raise Conflict(f"a key is called {name} already, revoked ones included; take another name")
    key = PREFIX + secrets.token_urlsafe(32)
    granted = [scope for scope in SCOPES if scope in scopes]
    session.add(ApiKey(name=name, key_hash=digest(key), scopes=granted, expires_at=expires_at))
    details = {"scopes": granted, "expires_at": expires_at.isoformat() if expires_at else None}
    _record(session, "api key created", name, details, actor)
    session.flush()
    return key


def revoke(session: Session, name: str, actor: str) -> bool:
    """End a key; whether that changes anything. Raises NotFound."""
    row = find(session, name)
    if row is None:
        raise NotFound(f"no key is called {shown(name)}; `python -m api_shim keys list` names them")
    if row.revoked_at is not None:
        return False
    row.revoked_at = now()
    _record(session, "api key revoked", name, {}, actor)
    session.flush()
    return True


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, by name."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.name)))


def find(session: Session, name: str) -> ApiKey | None:
    """The key of this name."""
    return session.scalar(select(ApiKey).where(ApiKey.name == name))


def state_of(key: ApiKey, at: datetime) -> State:
    """Whether a key opens anything."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= at:
        return "expired"
    return "active"


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _record(session: Session, action: str, name: str, details: Mapping[str, Any], actor: str) -> None:
    session.add(AuditEntry(actor=actor, action=action, subject=name, result="success", details=dict(details)))
