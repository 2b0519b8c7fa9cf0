# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What still differs on a node after a reconcile: what it found, without what it has repaired. Nobody looks again for
that: both modules read back what they apply, and what they could not apply they tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import COUNTS, only_peers_differ

#: By list of wg_drift's answer, what must be allowed for it to be repaired.
_SWITCHES = {
    "missing_peers": "reconcile_missing",
    "mismatched_peers": "reconcile_mismatched",
    "unknown_peers": "remove_unknown",
}


def what_is_left(
    answer: Mapping[str, Any],
    allowed: Mapping[str, Any],
    set_up: Collection[str],
    set_up_with_peers: Collection[str],
) -> dict[str, int]:
    """The counts of a report. `answer` is wg_drift's; `set_up` are the interfaces that wg_instance has brought to what
    they should be, or taken down, and `set_up_with_peers` those of them whose peers it has put in place."""
    mended = answer.get("reconciled") or {"errors": []}
    errors = mended["errors"]
    whole = [one for one in errors if not one["peer"] and one["interface"] not in set_up_with_peers]
    untouched = {one["interface"] for one in whole if one["action"] != "remove"}
    # Where more are unknown than may be removed, all of those stay, and the rest is done.
    kept = {one["interface"] for one in whole if one["action"] == "remove"}
    refused = {(one["interface"], one["peer"]) for one in errors if one["peer"]}
    found: dict[str, int] = {}
    for name, switch in _SWITCHES.items():
        count = COUNTS[name]
        entries, number = answer[name], answer["summary"][count]
        if not allowed[switch]:
            found[count] = number - sum(one["interface"] in set_up_with_peers for one in entries)
            continue
        found[count] = sum(
            one["interface"] not in set_up_with_peers
            and (
                one["interface"] in untouched
                or (name == "unknown_peers" and one["interface"] in kept)
                or (one["interface"], one["public_key"]) in refused
            )
            for one in entries
        )
    files = allowed["reconcile_missing"] or allowed["reconcile_mismatched"]
    left = [
        issue
        for issue in answer["interface_issues"]
        if issue["interface"] not in set_up
        and not (
            files
            and issue["field"] == "file"
            and issue["interface"] not in untouched
            and only_peers_differ(str(issue["actual"]))
        )
    ]
    # What is not in the list, because that is long, is repaired by the next reconcile.
    beyond = answer["summary"]["interface_count"] - len(answer["interface_issues"])
    return {**found, "interface_count": len(left) + beyond}
