# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's report on drift as Ansible's diff mode shows changes: before is what runs, after is what should."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_order import place
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.visible_text import visible

#: Entries of one node that are spelt out; more are counted.
MOST_ENTRIES = 200


def diffs(node: str, report: Mapping[str, Any]) -> list[dict[str, str]]:
    """One diff for each interface that has drift, by their numbers, as the `diff` of a task's result."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    entries = [
        (place(entry), kind, entry)
        for kind in ("interface_issues", "missing_peers", "mismatched_peers", "unknown_peers")
        for entry in report[kind]
    ]
    entries.sort(key=lambda one: (one[0][:2], one[1] != "interface_issues", one[0]))
    for _place, kind, entry in entries[:MOST_ENTRIES]:
        interface = visible(str(entry["interface"]))
        is_, should = before.setdefault(interface, []), after.setdefault(interface, [])
        if kind == "interface_issues":
            is_.append(f"{entry['field']}: {_value(entry['actual'])}")
            should.append(f"{entry['field']}: {_value(entry['expected'])}")
        elif kind == "missing_peers":
            should.append(_peer(entry, {"allowed_ips": entry["allowed_ips"]}))
        elif kind == "unknown_peers":
            fields = ("allowed_ips", "persistent_keepalive", "endpoint")
            is_.append(_peer(entry, {field: entry[field] for field in fields if entry[field]}))
        else:
            for lines, which in ((is_, "actual"), (should, "expected")):
                lines.append(_peer(entry, {one["field"]: one[which] for one in entry["mismatches"]}))
    found = [
        {
            "before_header": f"{node} {interface}",
            "after_header": f"{node} {interface}",
            "before": "".join(f"{line}\n" for line in before[interface]),
            "after": "".join(f"{line}\n" for line in after[interface]),
        }
        for interface in before
    ]
    left = report["summary"]["total_issues"] - len(entries[:MOST_ENTRIES])
    if left > 0:
        more = f"({left} more {'difference' if left == 1 else 'differences'})\n"
        found.append({"before_header": node, "after_header": node, "before": "", "after": more})
    return found


def lines(found: Iterable[Mapping[str, str]]) -> list[str]:
    """The same as a unified diff."""
    made: list[str] = []
    for one in found:
        made += difflib.unified_diff(
            one["before"].splitlines(),
            one["after"].splitlines(),
            fromfile=f"before: {one['before_header']}",
            tofile=f"after: {one['after_header']}",
            lineterm="",
        )
    return made


def _peer(entry: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    told = " ".join(f"{name} {_value(value)}" for name, value in fields.items())
    name = entry.get("name")
    return f"peer: {entry['public_key']} {told}".rstrip() + (f" ({visible(str(name), 60)})" if name else "")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = (
        ", ".join(map(str, value))
        if isinstance(value, (list, tuple))
        else ""
        if value is None
        else str(value)
    )
    return visible(text or "(none)")
