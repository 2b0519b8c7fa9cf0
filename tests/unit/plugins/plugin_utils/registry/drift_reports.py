"""Reports on the drift of fleets that there are not."""

from __future__ import annotations

import base64
import itertools
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_numbers = itertools.count(1)
KINDS = ("interface_issues", "missing_peers", "mismatched_peers", "unknown_peers")
COUNTS = ("interface_count", "missing_count", "mismatched_count", "unknown_count")


def key() -> str:
    """A public key, another one each time."""
    return base64.b64encode(next(_numbers).to_bytes(32, "big")).decode()


def issue(interface: str, field: str, expected: Any, actual: Any) -> dict[str, Any]:
    """What is wrong with an interface."""
    return {"interface": interface, "field": field, "expected": expected, "actual": actual}


def missing(interface: str, name: str, *networks: str) -> dict[str, Any]:
    """A peer that is not there."""
    return {
        "interface": interface,
        "public_key": key(),
        "allowed_ips": list(networks or ("10.8.7.2/32",)),
        "name": name,
        "peer_id": str(uuid.UUID(int=next(_numbers))),
    }


def mismatched(interface: str, name: str, **fields: tuple[Any, Any]) -> dict[str, Any]:
    """A peer that differs; by field what should be and what is."""
    found = missing(interface, name)
    del found["allowed_ips"]
    return {
        **found,
        "mismatches": [
            {"field": field, "expected": expected, "actual": actual}
            for field, (expected, actual) in fields.items()
        ],
    }


def unknown(interface: str, endpoint: str | None = None) -> dict[str, Any]:
    """A peer that nobody knows."""
    return {
        "interface": interface,
        "public_key": key(),
        "allowed_ips": ["10.99.0.7/32"],
        "endpoint": endpoint,
        "persistent_keepalive": 0,
    }


def node(name: str, **found: Any) -> dict[str, Any]:
    """A node with what was found there, by kind, and any other field."""
    lists = {kind: list(found.pop(kind, ())) for kind in KINDS}
    summary = {count: len(lists[kind]) for count, kind in zip(COUNTS, KINDS, strict=True)}
    summary["total_issues"] = sum(summary.values())
    return {
        "node": name,
        "has_drift": summary["total_issues"] > 0,
        **lists,
        "summary": summary,
        "node_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, repr(name))),
        "detected_at": "2026-11-27T14:55:02",
        **found,
    }


def lost(name: str, error: str, **more: Any) -> dict[str, Any]:
    """A node that could not be read."""
    found = node(name, has_drift=None, summary={"total_issues": 0}, error=error, **more)
    del found["detected_at"]
    return found


def fleet(nodes: Iterable[Mapping[str, Any]], **summary: Any) -> dict[str, Any]:
    """The report on all of them."""
    by_id = {one["node_id"]: dict(one) for one in nodes}
    return {
        "nodes": by_id,
        "summary": {
            "total_nodes": len(by_id),
            "nodes_with_drift": sum(bool(one["has_drift"]) for one in by_id.values()),
            "total_issues": sum(one["summary"]["total_issues"] for one in by_id.values()),
            **summary,
        },
    }
