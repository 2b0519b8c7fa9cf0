# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that end: their result, their audit row, and nothing secret left in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Operation,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import Result

_LONGEST_WAIT = timedelta(minutes=10)


def end(session: Session, operation: Operation, ended: Result, actor: str) -> dict[str, Any]:
    """Give an operation its result and its audit row. What is still to be done keeps what it needs for that, and is not
    audited again while each try ends alike."""
    before = operation.result or {}
    alike = before.get("pending") and before.get("message") == ended.message
    operation.result = told(operation, ended)
    operation.state = ended.state
    operation.error = ended.message if ended.status == "error" else None
    operation.owner = operation.lease_until = None
    if ended.state != "pending":
        operation.finished_at = now()
        operation.not_before = None
        _forget_secrets(operation)
    else:
        operation.finished_at = None
        operation.not_before = now() + retry_after(operation.attempts)
    if ended.state != "pending" or not alike:
        audit(session, operation, ended.status, actor, {"message": ended.message, "code": ended.code})
    return operation.result


def told(operation: Operation, ended: Result) -> dict[str, Any]:
    """A result as it is published, and kept in its row."""
    return {
        "operation_id": operation.id,
        "operation": operation.kind,
        "instance": operation.instance_name,
        "status": ended.status,
        "code": ended.code,
        "changed": stages.changed(operation),
        "pending": ended.state == "pending",
        "message": ended.message,
        **ended.details,
    }


def retry_after(attempts: int) -> timedelta:
    """How long to wait before what was tried so many times is tried again: 10 s, and twice as long each time."""
    doubled = min(max(attempts, 1) - 1, 10)
    return min(timedelta(seconds=10 * 2.0**doubled), _LONGEST_WAIT)


def cancel(session: Session, operation: Operation, why: str, actor: str) -> None:
    """End an operation that is not to be carried out any more."""
    operation.state = "canceled"
    operation.error = why
    operation.finished_at = now()
    operation.owner = operation.lease_until = None
    _forget_secrets(operation)
    audit(session, operation, "canceled", actor, {"message": why})


def refuse(session: Session, kind: str, subjects: Sequence[str], message: str, code: int, actor: str) -> None:
    """Note that operations were asked for and not taken on."""
    session.add_all(
        AuditEntry(
            actor=actor,
            action=kind,
            subject=subject,
            result="refused",
            details={"message": message, "code": code},
        )
        for subject in subjects
    )


def forget_secrets_of(session: Session, name: str) -> None:
    """Leave no peers, which may have preshared keys, in the operations of an instance that is no more."""
    for operation in session.scalars(select(Operation).where(Operation.instance_name == name)):
        _forget_secrets(operation)


def _forget_secrets(operation: Operation) -> None:
    if "peers_sealed" in operation.request:
        operation.request = {
            name: value for name, value in operation.request.items() if name != "peers_sealed"
        }


def audit(
    session: Session,
    operation: Operation,
    result: str,
    actor: str,
    details: dict[str, Any],
    action: str | None = None,
) -> None:
    """Note what becomes of an operation, and by whom; `action` is its kind unless it is said."""
    session.add(
        AuditEntry(
            actor=actor,
            action=action or operation.kind,
            subject=operation.instance_name or operation.request.get("node") or "",
            result=result,
            operation_id=operation.id,
            details=details,
        )
    )
