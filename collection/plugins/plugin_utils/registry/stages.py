# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of an operation: which nodes have something to do, in which order, and how it went there.

They stand in the operation's row, so that a run that comes after a killed one knows how far that had come.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
)

WAITING = "waiting"
DONE = "done"
FAILED = "failed"
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Job:
    """What one operation wants of one node: an instance as wg_instance takes it."""

    operation_id: str
    wanted: dict[str, Any]

    def __repr__(self) -> str:
        return f"Job({self.operation_id}, {self.wanted.get('name')}, {self.wanted.get('state')})"


@dataclass(frozen=True)
class Outcome:
    """How a job, or all jobs of an operation on a node, ended: `state` is DONE, FAILED or UNREACHABLE."""

    state: str
    changed: bool = False
    error: str | None = None


def plan(operation: Operation, stage: str, node: Node, needed: bool = True) -> None:
    """The operation has something to do on `node`, in this stage. What is not needed holds up no later stage."""
    set_outcome(operation, stage, node, Outcome(WAITING))
    if not needed:
        progress = copy.deepcopy(operation.progress)
        progress["stages"][stage][node.id]["needed"] = False
        operation.progress = progress


def set_outcome(operation: Operation, stage: str, node: Node, outcome: Outcome) -> None:
    """Note how it went on a node."""
    progress = copy.deepcopy(operation.progress or {})
    found = progress.setdefault("stages", {}).setdefault(stage, {}).setdefault(node.id, {})
    found.update(node=node.name, state=outcome.state, changed=outcome.changed, error=outcome.error)
    operation.progress = progress


def drop(operation: Operation, node: Node) -> None:
    """The operation has nothing to do on `node` after all."""
    progress = copy.deepcopy(operation.progress or {})
    for nodes_of_it in progress.get("stages", {}).values():
        nodes_of_it.pop(node.id, None)
    operation.progress = progress


def forget(operation: Operation) -> None:
    """Begin anew: what an earlier run planned is planned again."""
    progress = dict(operation.progress or {})
    progress.pop("stages", None)
    operation.progress = progress


def outcomes(operation: Operation, stage: str | None = None) -> dict[str, dict[str, Any]]:
    """By node id, how it went: of one stage, or of all (then by stage and node id)."""
    stages: dict[str, dict[str, dict[str, Any]]] = (operation.progress or {}).get("stages", {})
    if stage is not None:
        return stages.get(stage, {})
    return {f"{name} {node}": found for name, nodes in stages.items() for node, found in nodes.items()}


def states(operation: Operation) -> set[str]:
    """How it went, wherever the operation has or had something to do."""
    return {found["state"] for found in outcomes(operation).values()}


def nodes(operation: Operation, stage: str) -> list[str]:
    """The names of the nodes of a stage."""
    return [found["node"] for found in outcomes(operation, stage).values()]


def held_up(operation: Operation, stage: str) -> bool:
    """Whether a stage cannot begin because one before it is not done."""
    for name, nodes_of_it in (operation.progress or {}).get("stages", {}).items():
        if name == stage:
            return False
        if _failed(nodes_of_it):
            return True
    return False


def _failed(nodes_of_it: dict[str, dict[str, Any]]) -> bool:
    return any(found["state"] != DONE and found.get("needed", True) for found in nodes_of_it.values())


def note(operation: Operation, **values: Any) -> None:
    """Keep something else in the progress."""
    operation.progress = {**(operation.progress or {}), **values}


def changed(operation: Operation) -> bool:
    """Whether anything was changed so far: in the registry or on a node."""
    return bool((operation.progress or {}).get("changed")) or any(
        found["changed"] for found in outcomes(operation).values()
    )


def troubles(operation: Operation, node_id: str | None = None, but: str | None = None) -> list[str]:
    """What is not done, in sentences: of one node, of all `but` one, or of all."""
    told = []
    for stage, nodes_of_it in (operation.progress or {}).get("stages", {}).items():
        # What did not begin because something failed before is no trouble of its own, nor is what was not needed.
        if not held_up(operation, stage):
            failed = _failed(nodes_of_it)
            told += _told(
                {
                    number: found
                    for number, found in nodes_of_it.items()
                    if number != but and node_id in (None, number) and (failed or found.get("needed", True))
                }
            )
    return told


def _told(nodes_of_it: dict[str, dict[str, Any]]) -> list[str]:
    told = []
    for found in nodes_of_it.values():
        if found["state"] == WAITING:
            told.append(f"node {found['node']} was left out of this run")
        elif found["state"] == UNREACHABLE:
            told.append(f"node {found['node']} cannot be reached: {found['error']}")
        elif found["state"] == FAILED:
            told.append(f"node {found['node']}: {found['error']}")
    return told
