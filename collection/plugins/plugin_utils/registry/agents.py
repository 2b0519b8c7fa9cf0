# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agents of nodes: how each is asked, and how its secret and its certificate change while it is.

    prepare   there is a secret to deploy; on request, one that is to take the place of the one in use
    expect    what the agent is going to show in TLS is known before it shows it
    confirm   it answers: from now on the node is reached by it, with the newest secret and certificate
    forget    the node is reached by SSH

The node has all secrets that `accepted` tells. So both sides agree wherever this stops, and it goes on from there.
"""

from __future__ import annotations

import secrets

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent, certificates
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Node

_SECRET_BYTES = 32


def agent_of(session: Session, name: str) -> Agent | None:
    """The agent by which the node of this name is reached; None when that is by SSH.

    An agent without a secret is not ours yet: its URL alone does not say how to speak with it.
    """
    return _found(session, Node.name == name).get(name)


def by_name(session: Session) -> dict[str, Agent]:
    """By name, the agents of all nodes that are reached by one."""
    return _found(session)


def _found(session: Session, *where: ColumnElement[bool]) -> dict[str, Agent]:
    rows = session.execute(
        select(Node.name, Node.agent_url, Node.agent_secret, Node.agent_certificate).where(
            Node.agent_url.is_not(None), Node.agent_secret.is_not(None), *where
        )
    )
    return {
        name: Agent(url, secret, certificate)
        for name, url, secret, certificate in rows
        if url is not None and secret is not None
    }


def prepare(node: Node, rotate: bool) -> bool:
    """Make a secret where there is none, or with `rotate` the next one; returns whether one was made."""
    if pending(node) or (node.agent_secret is not None and not rotate):
        return False
    node.agent_secret_next = secrets.token_hex(_SECRET_BYTES)
    return True


def pending(node: Node) -> bool:
    """Whether there is a secret that has not been confirmed: `prepare` makes no further one."""
    return node.agent_secret_next is not None


def accepted(node: Node) -> list[str]:
    """The secrets that the agent is to take, newest first."""
    return [secret for secret in (node.agent_secret_next, node.agent_secret) if secret is not None]


def expect(node: Node, certificate: str) -> bool:
    """Take `certificate` (PEM) for the agent's too; returns whether that is new."""
    known = certificates(node.agent_certificate or "")
    if certificate.strip() in known:
        return False
    node.agent_certificate = "\n".join([certificate.strip(), *known]) + "\n"
    return True


def newest(node: Node, url: str, certificate: str | None) -> Agent | None:
    """The agent as it is to be reached from now on, for asking whether it can be; None without a secret."""
    secret = next(iter(accepted(node)), None)
    return None if secret is None else Agent(url, secret, certificate)


def confirm(session: Session, node: Node, agent: Agent, actor: str) -> dict[str, bool]:
    """`agent` has answered: the node is reached by it, and by nothing else. Returns what changes, for the audit."""
    changes = {
        "agent_url": node.agent_url != agent.url,
        "agent_secret": node.agent_secret != agent.secret,
        "agent_certificate": node.agent_certificate != agent.certificate,
    }
    node.agent_url, node.agent_secret, node.agent_certificate = agent.url, agent.secret, agent.certificate
    if node.agent_secret_next == agent.secret:
        node.agent_secret_next = None
    if any(changes.values()):
        _record(session, node, "agent deployed", actor, changes)
    return changes


def forget(session: Session, node: Node, actor: str) -> bool:
    """Reach the node by SSH again; returns whether that is a change."""
    fields = ("agent_url", "agent_secret", "agent_secret_next", "agent_certificate")
    changes = {name: getattr(node, name) is not None for name in fields}
    if not any(changes.values()):
        return False
    for name in fields:
        setattr(node, name, None)
    _record(session, node, "agent removed", actor, changes)
    return True


def _record(session: Session, node: Node, action: str, actor: str, changes: dict[str, bool]) -> None:
    session.add(
        AuditEntry(
            actor=actor,
            action=action,
            subject=node.name,
            result="success",
            details={
                "agent_url": node.agent_url,
                "changed": sorted(name for name, changed in changes.items() if changed),
            },
        )
    )
