# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding instances and nodes by what users call them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Node,
)


def find_instance(session: Session, name: str) -> Instance | None:
    """The instance of this name."""
    return session.scalar(select(Instance).where(Instance.name == name))


def require_instance(session: Session, name: str) -> Instance:
    """The instance of this name. Raises NotFound."""
    instance = find_instance(session, name)
    if instance is None:
        raise NotFound(f"no instance is called {name}")
    return instance


def unknown_instances(session: Session, names: Sequence[str]) -> list[str]:
    """Those of `names` that no instance is called."""
    known: set[str] = set()
    for start in range(0, len(names), CHUNK):
        some = names[start : start + CHUNK]
        known.update(session.scalars(select(Instance.name).where(Instance.name.in_(some))))
    return [name for name in names if name not in known]


def require_node(session: Session, name: str) -> Node:
    """The node of this name or id. Raises NotFound."""
    node = session.scalar(select(Node).where(or_(Node.name == name, Node.id == name)))
    if node is None:
        raise NotFound(f"no node is called {name}")
    return node
