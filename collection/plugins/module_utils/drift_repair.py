# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What wg_drift does: it tells the difference between the peers that should be and those that are, and repairs it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import first_overlap
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome, converge
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    DEFAULT_CONFIG_DIR,
    Desired,
    integer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    Expected,
    all_secrets,
    check_expected,
    compare_all,
    file_difference,
    finish,
    lost_routes,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import peer_changes, same_peer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import read_node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import bound, diffs
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.second_reading import require_whole
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Peer

SWITCHES = ("reconcile_missing", "reconcile_mismatched", "remove_unknown")

# So often is a repair tried with ever fewer peers at once; who is not served by then gets the last error.
MOST_TRIES = 100


@dataclass
class Repair:
    """What a reconciliation did, in the seeds' words."""

    added: List[str] = field(default_factory=list)
    updated: List[str] = field(default_factory=list)
    removed: List[str] = field(default_factory=list)
    errors: List[Dict[str, str]] = field(default_factory=list)


def run(params: Dict[str, Any], check_mode: bool, with_diff: bool) -> Dict[str, Any]:
    """Compare, and repair what the switches allow; returns the module's answer.

    Raises WireGuardError when an interface cannot be read: nothing is concluded from half a picture.
    """
    expected = check_expected(params)
    config_dir = params.get("config_dir") or DEFAULT_CONFIG_DIR
    looked_at = [item for item in expected if item.state != "any"]
    node = read_node([item.interface for item in looked_at])
    answer, states = compare_all(node, expected, config_dir, bool(params.get("complete")))
    secrets = all_secrets(expected, states)
    if any(params.get(switch) for switch in SWITCHES):
        present = [item for item in expected if item.state == "present"]
        wanted = [Desired(name=item.interface, config_dir=config_dir) for item in present]
        repair, outcomes = reconcile(params, present, wanted, check_mode)
        answer["changed"] = any(bool(outcome.steps) and not outcome.error for outcome in outcomes)
        failed = [f"{one['interface']}: {one['error']}" for one in repair.errors if not one["peer"]]
        if failed:
            answer["failed"] = True
            answer["msg"] = "; ".join(failed[:10])
        answer["reconciled"] = {
            "added": repair.added, "updated": repair.updated, "removed": repair.removed, "errors": repair.errors
        }  # fmt: skip
        bound([answer["reconciled"]], ("added", "updated", "removed", "errors"))
        if with_diff:
            answer["diff"] = diffs(outcomes)
    else:
        answer["changed"] = False
    return finish(answer, secrets)


def reconcile(
    params: Mapping[str, Any], expected: List[Expected], wanted: List[Desired], check_mode: bool
) -> Tuple[Repair, List[Outcome]]:
    """Repair what the switches allow. Each peer stands for itself: one that cannot be put in place, or taken away, is
    an error in the report, and the rest is done."""
    repair = Repair()
    by_name = {item.interface: item for item in expected}
    asked: Dict[str, Dict[str, str]] = {}

    def edit(desired: Desired, actual: InterfaceState) -> Optional[Desired]:
        item = by_name[desired.name]
        edited = _edit(desired, actual, item, params, repair)
        actions = _actions(actual, edited)
        if actions and actual.device is not None:
            require_whole({desired.name: actual.device})
        asked[desired.name] = actions
        return edited if actions or _is_to_mend(item, actual, params) else None

    outcomes: List[Outcome] = []
    for outcome in converge(wanted, check_mode, edit):
        name = outcome.desired.name
        if outcome.error and asked.get(name):
            tried = _one_by_one(outcome, by_name[name], params, asked[name], check_mode, repair)
        else:
            tried = [outcome]
        outcomes += tried
        for one in tried:
            if one.error:
                repair.errors.append(_error_of(name, "reconcile", one.error))
                continue
            changes = peer_changes(one.before, one.wanted)
            repair.added += sorted(changes.added)
            repair.updated += sorted(changes.updated)
            repair.removed += sorted(changes.remove)
    return repair, outcomes


def _actions(actual: InterfaceState, edited: Desired) -> Dict[str, str]:
    """What is to be done by public key: "remove", "update" or "add", in this order, so that networks are free for who
    is to get them."""
    live, goal = actual.device.peers if actual.device else {}, edited.peers or {}
    actions = {key: "remove" for key in live if key not in goal}
    actions.update(
        (key, "update") for key, peer in goal.items() if key in live and not same_peer(peer, live[key])
    )
    actions.update((key, "add") for key in goal if key not in live)
    return actions


def _is_to_mend(expected: Expected, actual: InterfaceState, params: Mapping[str, Any]) -> bool:
    """Whether something of an interface is to be put right whose peers are as they should be. What `compare` finds
    nothing of, and that alone, is left as it is."""
    if actual.unfinished:
        return True
    if actual.file is None:
        return bool(params.get("reconcile_missing") or params.get("reconcile_mismatched"))
    return bool(params.get("reconcile_mismatched")) and bool(
        actual.config is None
        or not actual.file_is_private
        or (actual.link is not None and not actual.link.up)
        or file_difference(actual)
        or lost_routes(expected, actual)
    )


def _one_by_one(
    failed: Outcome,
    expected: Expected,
    params: Mapping[str, Any],
    actions: Mapping[str, str],
    check_mode: bool,
    repair: Repair,
) -> List[Outcome]:
    """Do what can be done of `actions` that failed together, and note an error for each peer that cannot be served.

    Halves are tried, then their halves, until the culprits are alone. Returns the outcomes of what was done; or
    `failed` itself when it is no matter of peers.
    """
    plain = Desired(name=expected.interface, config_dir=failed.desired.config_dir)
    tries = 0

    def attempt(keys: Sequence[str]) -> Outcome:
        nonlocal tries
        tries += 1

        def edit(desired: Desired, actual: InterfaceState) -> Optional[Desired]:
            if actual.device is None:
                raise Refused("the interface is not there any more")
            edited = _edit(desired, actual, expected, params, Repair())
            live, goal, chosen = actual.device.peers, edited.peers or {}, set(keys)
            peers = {
                key: peer
                for key, peer in [*_kept(actual).items(), *((key, goal[key]) for key in keys if key in goal)]
                if key in goal or key not in chosen
            }
            overlaps = Repair()
            _drop_overlaps(peers, chosen & goal.keys(), live, expected.interface, overlaps)
            if overlaps.errors:
                raise Refused(overlaps.errors[0]["error"])
            edited = replace(edited, peers=peers)
            return edited if _actions(actual, edited) or _is_to_mend(expected, actual, params) else None

        return converge([plain], check_mode, edit)[0]

    done = attempt(())
    if done.error:
        return [failed]
    outcomes = [done]
    known, why = True, str(failed.error)  # that all of them together fail
    stack = [list(actions)]
    while stack:
        keys = stack.pop()
        if not known and tries < MOST_TRIES:
            done = attempt(keys)
            if not done.error:
                outcomes.append(done)
                continue
            why = done.error
        known = False
        if len(keys) > 1 and tries < MOST_TRIES:
            half = len(keys) // 2
            stack += [keys[half:], keys[:half]]
            continue
        repair.errors += [
            {"peer": key, "interface": expected.interface, "action": actions[key], "error": why}
            for key in keys
        ]
    return outcomes


def _edit(
    desired: Desired, actual: InterfaceState, expected: Expected, params: Mapping[str, Any], repair: Repair
) -> Desired:
    if actual.device is None:
        raise Refused("the interface is not on this node; bring it up with wg_instance")
    in_file = actual.config.peers if actual.config else {}
    peers, removed = _kept(actual), 0
    if params.get("remove_unknown"):
        known = {key: peer for key, peer in peers.items() if key in expected.peers}
        removed = len(peers) - len(known)
        refused = _too_many(removed, params)
        if refused is None:
            peers = known
        else:
            # They all stay; those that should be there are served all the same.
            repair.errors.append(_error_of(expected.interface, "remove", refused))
            removed = 0
    put: Set[str] = set()
    for key, peer in expected.peers.items():
        there = actual.device.peers.get(key)
        if (there is None and params.get("reconcile_missing")) or (
            there is not None and not same_peer(peer, there) and params.get("reconcile_mismatched")
        ):
            peers[key] = peer
            put.add(key)
    _drop_overlaps(peers, put, actual.device.peers, expected.interface, repair)
    return replace(desired, peers=peers, max_removals=removed + len(in_file), enabled=None)


def _too_many(removed: int, params: Mapping[str, Any]) -> Optional[str]:
    """Why so many peers are not removed from one interface, if they are not."""
    limit = params.get("max_removals")
    limit = 10 if limit is None else integer(limit, "max_removals", 0, 2**31)
    if removed <= limit:
        return None
    return (
        f"{removed} unknown peers would be removed, {limit} are allowed: if that is right, set max_removals to "
        f"{removed} or more"
    )


def _error_of(interface: str, action: str, error: str) -> Dict[str, str]:
    """What went wrong with an interface as a whole."""
    return {"peer": "", "interface": interface, "action": action, "error": error}


def _kept(actual: InterfaceState) -> Dict[str, Peer]:
    """The peers that run, as they are. Where a device was last seen is nothing that was asked for."""
    in_file = actual.config.peers if actual.config else {}
    live = actual.device.peers if actual.device else {}
    return {
        key: peer._replace(endpoint=in_file[key].endpoint if key in in_file else None)
        for key, peer in live.items()
    }


def _drop_overlaps(
    peers: Dict[str, Peer], put: Set[str], live: Mapping[str, Peer], interface: str, repair: Repair
) -> None:
    """Leave out those of `put` whose networks another peer holds; wg would move the networks silently."""
    while True:
        # Those that stay as they are count as one: what overlaps among them is on the node like that already.
        overlap = first_overlap(
            [(net, key if key in put else "") for key, peer in peers.items() for net in peer.allowed_ips]
        )
        if overlap is None:
            return
        (first, first_owner), (second, second_owner) = overlap
        loser, net, other = (
            (second_owner, second, first) if second_owner in put else (first_owner, first, second)
        )
        winner = next(key for key, peer in peers.items() if key != loser and other in peer.allowed_ips)
        repair.errors.append(
            {
                "peer": loser,
                "interface": interface,
                "action": "update" if loser in live else "add",
                "error": f"{net} overlaps with what peer {winner} has",
            }
        )
        put.discard(loser)
        if loser in live:
            peers[loser] = live[loser]._replace(endpoint=None)
        else:
            del peers[loser]
