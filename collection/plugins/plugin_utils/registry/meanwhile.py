# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the registry says of a node may change while the node is read: what then differs is no drift.

What nodes should run is read before they are; a run that ends in between is seen on the node and not in what it was
compared with. So whoever finds differences reads once more what should be, and says nothing of what is not as it was:

    a peer whose row has changed, came or went   nothing of this peer
    an interface of which anything has changed   nothing of it but of its other peers

The next look tells whether these are right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import COUNTS, ENTRIES, Expected


def unchanged(
    answer: Mapping[str, Any], before: Sequence[Expected], after: Sequence[Expected]
) -> dict[str, Any]:
    """What wg_drift answers of a node, without the differences on what the registry says otherwise by now. Pure."""
    earlier, later = ({one.interface: one for one in some} for some in (before, after))
    changed = {name for name in earlier.keys() | later.keys() if earlier.get(name) != later.get(name)}
    if not changed:
        return dict(answer)

    def is_same(kind: str, entry: Mapping[str, Any]) -> bool:
        name = entry["interface"]
        if name not in changed:
            return True
        if kind == "interface_issues":
            return False
        was, now = earlier.get(name), later.get(name)
        key = entry["public_key"]
        return (
            was is not None
            and now is not None
            and was.state == now.state == "present"
            and was.peers.get(key) == now.peers.get(key)
        )

    kept = {kind: [one for one in answer[kind] if is_same(kind, one)] for kind in ENTRIES}
    # The lists may have been cut short; the numbers are of all.
    numbers = dict(answer["summary"])
    for kind, found in kept.items():
        dropped = len(answer[kind]) - len(found)
        numbers[COUNTS[kind]] -= dropped
        numbers["total_issues"] -= dropped
    return {**answer, **kept, "has_drift": numbers["total_issues"] > 0, "summary": numbers}
