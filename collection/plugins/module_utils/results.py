# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules answer: bounded in size, free of secrets."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Set

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import KEY_PATTERN
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import peer_changes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import diff, summary
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState

# A runner replaces a result of more than 700,000 characters by nothing at all, so one call names no more peers than
# these. Counts are always exact.
MAX_ENTRIES = 2000
PEER_LISTS = ("peers_added", "peers_updated", "peers_removed")


def instance_result(outcome: Outcome) -> Dict[str, Any]:
    """The answer for one instance."""
    changes = peer_changes(outcome.before, outcome.wanted)
    failed = outcome.error is not None
    # What failed was undone: then what the interface is, is what it was before.
    state = outcome.before if failed else outcome.wanted
    result: Dict[str, Any] = {
        "name": outcome.desired.name,
        "state": outcome.desired.state,
        "changed": bool(outcome.steps) and not failed,
        "public_key": state.device.public_key if state.device else None,
        "listen_port": state.device.listen_port if state.device else None,
        "peers_added": [] if failed else sorted(changes.added),
        "peers_updated": [] if failed else sorted(changes.updated),
        "peers_removed": [] if failed else sorted(changes.remove),
        "steps": [] if failed else summary(outcome.steps),
    }
    if failed:
        result["error"] = outcome.error
    return result


def diffs(outcomes: Iterable[Outcome]) -> List[Dict[str, str]]:
    """The diffs of those outcomes that change something."""
    return [
        diff(outcome.desired, outcome.before, outcome.wanted)
        for outcome in outcomes
        if outcome.steps and outcome.error is None
    ]


def bound(results: List[Dict[str, Any]], lists: Iterable[str], most: int = MAX_ENTRIES) -> None:
    """Cut the named lists of `results` so that they hold no more than `most` entries altogether. For each list
    there is a count beside it; ``truncated`` is true where something was cut."""
    left = most
    for result in results:
        for name in lists:
            entries = result[name]
            result[f"{name}_count"] = len(entries)
            if len(entries) > left:
                result[name] = entries[:left]
                result["truncated"] = True
            left -= len(result[name])


def secrets_of(states: Iterable[InterfaceState]) -> Set[str]:
    """All private and preshared keys in `states`."""
    found: Set[str] = set()
    for state in states:
        for holder in (state.device, state.config):
            if holder is None:
                continue
            if holder.private_key:
                found.add(holder.private_key)
            found.update(peer.preshared_key for peer in holder.peers.values() if peer.preshared_key)
    return found


def scrub(value: Any, secrets: Set[str]) -> Any:
    """`value` with every text that holds one of `secrets` cleaned of it: the last net under all that is printed.

    It looks for what has the form of a key and then whether it is a secret one, so that ten thousand secrets take no
    longer than one.
    """
    if not secrets:
        return value
    if isinstance(value, str):
        return KEY_PATTERN.sub(lambda match: "(secret)" if match.group() in secrets else match.group(), value)
    if isinstance(value, dict):
        return {scrub(key, secrets): scrub(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item, secrets) for item in value]
    return value
