# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at many nodes tells of all of them together.

A run publishes no more of it than a runner can transport; who has asked over HTTP gets it out of the nodes' rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    MOST_CHARACTERS,
    bounded,
    fit,
)

#: The lists of a report; when it has to be cut short, the last go first.
LISTS = ("interface_issues", "missing_peers", "mismatched_peers", "unknown_peers")
#: Of all nodes together, in an answer over HTTP: a thousand nodes with ten differences each.
_MOST_ANSWERED = 4_000_000


def published(held: Sequence[Operation], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a look at the fleet publishes: the operations' own results, shortened, and the report; nothing when one node
    was asked for. Of more nodes than a runner can transport, those with an error come first, then those with drift;
    the numbers are of all."""
    if not held or not held[0].request.get("several"):
        return {}
    # Each report stands in it twice.
    shortened = _shortened(results, MOST_CHARACTERS // 2)
    data = fleet(shortened)
    whole = {"operations": shortened, "data": data}
    if len(json.dumps(whole)) <= MOST_CHARACTERS:
        return whole
    told = {one["node_id"] for one in bounded(sorted(shortened, key=_weight), MOST_CHARACTERS // 2)}
    nodes = {number: found for number, found in data["nodes"].items() if number in told}
    return {
        "operations": [one for one in shortened if one["node_id"] in told],
        "operations_count": len(results),
        "truncated": True,
        "data": {"nodes": nodes, "summary": data["summary"], "truncated": True},
    }


def of_run(session: Session, run_id: str) -> dict[str, Any]:
    """The report on all nodes that a run has looked at, out of their rows; empty when there are none."""
    rows = session.scalars(
        select(Operation)
        .where(Operation.run_id == run_id, Operation.kind == "drift", Operation.node_id.is_not(None))
        .order_by(Operation.created_at, Operation.id)
    )
    results = [one.result for one in rows if one.result is not None]
    return fleet(_shortened(results, _MOST_ANSWERED)) if results else {}


def fleet(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report on many nodes in the contract's shape, and which of them could be reached. A node that could not be
    read has an `error`, and nothing is said of its drift."""
    nodes = {
        one["node_id"]: {**one["data"], "reachable": True}
        if "data" in one
        else {
            "has_drift": None,
            **{name: [] for name in LISTS},
            "summary": {"total_issues": 0},
            "node_id": one["node_id"],
            "reachable": one["reachable"],
            "last_seen": one["last_seen"],
            "error": one["message"],
        }
        for one in results
    }
    return {
        "nodes": nodes,
        "summary": {
            "total_nodes": len(nodes),
            "nodes_with_drift": sum(bool(found["has_drift"]) for found in nodes.values()),
            "total_issues": sum(found["summary"]["total_issues"] for found in nodes.values()),
            "unreachable_nodes": sum(not found["reachable"] for found in nodes.values()),
        },
    }


def _shortened(results: Sequence[dict[str, Any]], characters: int) -> list[dict[str, Any]]:
    """With reports that take no more than so many characters together."""
    fitted = iter(fit([one["data"] for one in results if "data" in one], characters, LISTS))
    return [{**one, "data": next(fitted)} if "data" in one else one for one in results]


def _weight(one: Mapping[str, Any]) -> int:
    return 0 if "data" not in one else 1 if one["data"]["has_drift"] else 2
