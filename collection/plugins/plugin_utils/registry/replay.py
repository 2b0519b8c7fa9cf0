# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: what a run would do, by doing it in a transaction that the caller rolls back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    node_operations,
    operations,
    owner,
    queue,
    stages,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
)


def replay(
    session: Session, run: Mapping[str, Any], variables: Mapping[str, Any], before: str | None
) -> list[Operation]:
    """The operations of a run as they would be when stage `before` begins, or, if None, when all went well."""
    kind = str(run["operation"])
    held = operations.begin(
        session,
        kind,
        queue.requested(session, kind, variables),
        operations.Run(
            id=str(run["id"]),
            owner=owner.process_token(1),
            actor="",
            hosts=frozenset(str(host) for host in run["hosts"]),
        ),
    )
    for stage in operations.stage_nodes(held):
        if stage == before:
            break
        for node_id in {number for one in held for number in stages.outcomes(one, stage)}:
            node = session.get_one(Node, node_id)
            done = {
                one.id: stages.Outcome(stages.DONE, changed=True)
                for one in held
                if node_id in stages.outcomes(one, stage)
            }
            operations.settle(session, held, stage, node, done)
    if before is None and kind in node_operations.KINDS:
        node_operations.recall(session, held, _looked(variables, run["nodes"]))
    return held


def _looked(variables: Mapping[str, Any], nodes: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """What the nodes answered, by name: they were looked at all the same, and the registry was told nothing of it."""
    here = variables["hostvars"].raw_get("localhost").get("ansible_facts", {})
    found: dict[str, Mapping[str, Any]] = dict(here.get("vpnfleet_looks", {}))
    for name in nodes:
        facts = variables["hostvars"].raw_get(name).get("ansible_facts", {})
        if "vpnfleet_looked" in facts:
            found[name] = facts["vpnfleet_looked"]
    return found
