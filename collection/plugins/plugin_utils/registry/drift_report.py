# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on the drift of a fleet as files: a page for people, and data for programs."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import fleet_report
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.counted import counted
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_order import place
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_page import page
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Teardown,
    now,
)

PAGE, DATA = "drift.html", "drift.json"
_INTERFACE = re.compile(r"wg([0-9]{1,9})")


def write(folder: Path, results: Sequence[Mapping[str, Any]], instances: Mapping[str, str]) -> dict[str, str]:
    """Write both files; returns their paths. `instances` are the customers' names by interface.

    Each is there as a whole or as it was before, readable by its owner alone. Raises OSError.
    """
    moment = now()
    data = whole(results)
    told = {
        "created_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": data,
        "instances": dict(instances),
    }
    texts = {
        DATA: json.dumps(told, indent=2) + "\n",
        PAGE: page(data, moment.strftime("%Y-%m-%d %H:%M:%S"), instances, DATA),
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in texts.items():
        _replace(folder, name, text)
    return {"html": str(folder / PAGE), "json": str(folder / DATA)}


def whole(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The contract's report on the fleet, each node with its name as `node` besides, and all in a lasting order."""
    by_name = sorted(results, key=lambda one: (one["node"], one["node_id"]))
    data = fleet_report.fleet(by_name)
    names = {one["node_id"]: one["node"] for one in by_name}
    nodes = {
        number: {
            "node": names[number],
            **found,
            **{kind: sorted(found[kind], key=place) for kind in fleet_report.LISTS},
        }
        for number, found in data["nodes"].items()
    }
    return {**data, "nodes": nodes}


def instances_of(session: Session, results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The customers' names by interface, of all interfaces that the results speak of."""
    named = {
        str(entry["interface"])
        for one in results
        for kind in fleet_report.LISTS
        for entry in one.get("data", {}).get(kind, ())
    }
    found: dict[str, str] = {}
    interfaces = sorted(named)
    for start in range(0, len(interfaces), CHUNK):
        some = interfaces[start : start + CHUNK]
        left = select(Teardown.interface, Teardown.instance_name).where(Teardown.interface.in_(some))
        found.update((interface, name) for interface, name in session.execute(left))
        numbers = [int(match[1]) for match in map(_INTERFACE.fullmatch, some) if match]
        there = select(Instance.id, Instance.name).where(Instance.id.in_(numbers))
        found.update((f"wg{number}", name) for number, name in session.execute(there))
    return dict(sorted(found.items()))


def drifted(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The nodes with drift in a sentence; none when there are none."""
    found = sorted(
        (str(one["node"]), one["data"]["summary"]["total_issues"])
        for one in results
        if one.get("data", {}).get("has_drift")
    )
    if not found:
        return []
    named = ", ".join(f"{name} ({counted(number, 'issue')})" for name, number in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return [f"drift on {len(found)} of {counted(len(results), 'node')}: {named}{more}"]


def _replace(folder: Path, name: str, text: str) -> None:
    """Two runs that write at once have files of their own until each has its place."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
