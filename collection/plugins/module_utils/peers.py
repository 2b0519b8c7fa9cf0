# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the module wg_peer: peers added to, changed on and removed from an interface that exists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Set, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import converge
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    PEER_FIELDS,
    PEER_LABELS,
    Desired,
    check_instance,
    check_name,
    check_overlap,
    check_peer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import check_public_key
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import (
    PEER_LISTS,
    bound,
    diffs,
    instance_result,
    scrub,
    secrets_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Peer

STATES = ("present", "absent")


def run(params: Dict[str, Any], check_mode: bool, with_diff: bool) -> Dict[str, Any]:
    """Bring the peers of `params` to what is asked for and return the module's answer.

    Raises InvalidInput or another WireGuardError; then nothing has changed.
    """
    check_name(params.get("interface"), "interface")
    put, gone = _asked(params)
    desired = check_instance({"name": params["interface"], "config_dir": params.get("config_dir")}, "")

    def edit(desired: Desired, actual: InterfaceState) -> Optional[Desired]:
        return _edit(desired, actual, put, gone)

    outcome = converge([desired], check_mode, edit)[0]
    secrets = secrets_of([outcome.before, outcome.wanted])
    secrets.update(fields["preshared_key"] for fields, _peer in put.values() if fields.get("preshared_key"))
    if outcome.error:
        raise Refused(scrub(f"{desired.name}: {outcome.error}", secrets))
    result = instance_result(outcome)
    bound([result], PEER_LISTS)
    del result["state"]
    result["interface"] = result.pop("name")
    if with_diff:
        result["diff"] = diffs([outcome])
    cleaned: Dict[str, Any] = scrub(result, secrets)
    return cleaned


Put = Dict[str, Tuple[Mapping[str, Any], Peer]]


def _asked(params: Mapping[str, Any]) -> Tuple[Put, Set[str]]:
    """The peers to put (the fields that were given, and their checked form) and the keys of those that shall go."""
    batch, prefix = params.get("peers"), "peers[{}]"
    default_state = params.get("state") or "present"
    if batch is None:
        batch, prefix = [{key: params.get(key) for key in PEER_FIELDS}], ""
    elif params.get("public_key") is not None:
        raise InvalidInput("public_key", "goes with a single peer, not beside peers")
    if not isinstance(batch, list):
        raise InvalidInput("peers", "is not a list")
    put: Put = {}
    gone: Set[str] = set()
    for index, element in enumerate(batch):
        field = prefix.format(index)
        if not isinstance(element, dict):
            raise InvalidInput(field, "is not a mapping")
        fields = {key: value for key, value in element.items() if value is not None}
        state = fields.pop("state", default_state)
        if state not in STATES:
            raise InvalidInput(f"{field}.state".lstrip("."), f"is not one of {', '.join(STATES)}")
        key = check_public_key(fields.get("public_key"), f"{field}.public_key".lstrip("."))
        if key in put or key in gone:
            raise InvalidInput(f"{field}.public_key".lstrip("."), f"{key} is there twice")
        if state == "absent":
            unknown = sorted(str(name) for name in fields if name not in PEER_FIELDS + PEER_LABELS)
            if unknown:
                raise InvalidInput(f"{field}.{unknown[0][:40]}".lstrip("."), "is no field of a peer")
            gone.add(key)
        else:
            put[key] = (fields, check_peer(fields, field))
    return put, gone


def _edit(desired: Desired, actual: InterfaceState, put: Put, gone: Set[str]) -> Optional[Desired]:
    if actual.device is None:
        if not put and actual.file is None:
            return None  # nothing is there, and nothing is what was asked for
        why = "only its config file is there" if actual.file is not None else "there is no such interface"
        raise Refused(f"{why}; bring it up with wg_instance first")
    in_file = actual.config.peers if actual.config else {}
    peers: Dict[str, Peer] = {}
    for key, peer in actual.device.peers.items():
        peers[key] = peer._replace(endpoint=in_file[key].endpoint if key in in_file else None)
    for key, (fields, peer) in put.items():
        there = peers.get(key)
        if there is not None:
            # What was not given stays as it is.
            peer = there._replace(**{name: getattr(peer, name) for name in PEER_FIELDS if name in fields})
        peers[key] = peer
    for key in gone:
        peers.pop(key, None)
    check_overlap(peers, "allowed_ips")
    # Whoever names a peer to be removed has allowed it; a peer that only the file still has goes with the rewriting.
    return replace(desired, peers=peers, max_removals=len(actual.device.peers) + len(in_file), enabled=None)
