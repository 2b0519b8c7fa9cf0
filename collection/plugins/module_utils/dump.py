# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer of ``wg show <interface|all> dump``, which is the one complete and stable reading of WireGuard's state.

Per interface one line (private key, public key, port, fwmark), then one per peer (public key, preshared key,
endpoint, AllowedIPs, last handshake, bytes received, bytes sent, keepalive), fields parted by tabs; with ``all``
each line begins with the interface's name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import PeerMap, derived
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, Peer


class IncompleteDump(WireGuardError):
    """The answer stops in the middle or is not a dump: nothing may be concluded from it."""


class Traffic(NamedTuple):
    """What a dump says of a peer's life."""

    latest_handshake: int  # seconds since 1970, 0 for never
    received: int  # bytes
    sent: int  # bytes


# By interface, the lines of its last dump and its peers, in a process that has asked for it.
Last = Dict[str, Tuple[FrozenSet[str], PeerMap]]
_LAST: Optional[Last] = None
_MOST_INTERFACES = 64


def remember() -> None:
    """From now on, remember the last dump of each interface: for a process that reads the same ones again and again, as
    most lines are what they were."""
    global _LAST
    _LAST = {}


def _none(text: str) -> Optional[str]:
    return None if text == "(none)" else text


def parse_dump(text: str, interface: Optional[str] = None) -> Dict[str, Device]:
    """Return the devices of a dump by name. `interface` is its name when the dump is of a single one."""
    devices: Dict[str, Device] = {}
    if text and not text.endswith("\n"):
        raise IncompleteDump("the answer of wg show dump stops in the middle of a line")
    if interface is not None and _LAST is not None:
        try:
            return _one(text.splitlines(), interface, _LAST)
        except ValueError:
            raise IncompleteDump("wg show dump gave a line that is not a dump's") from None
    for line in text.splitlines():
        fields = line.split("\t")
        if interface is None:
            name = fields.pop(0)
        else:
            name = interface
        try:
            if len(fields) == 8:
                devices[name].peers[fields[0]] = _peer(fields)
            else:
                devices[name] = _device(fields)
        except (KeyError, ValueError):
            raise IncompleteDump("wg show dump gave a line that is not a dump's") from None
    return devices


def _one(lines: List[str], interface: str, last: Last) -> Dict[str, Device]:
    if not lines:
        return {}
    device = _device(lines[0].split("\t"))
    now = frozenset(lines[1:])
    then, peers = last.get(interface, (frozenset(), PeerMap({})))
    found = [_peer(line.split("\t")) for line in now - then]
    gone = {line.partition("\t")[0] for line in then - now}
    peers = derived(
        peers,
        # Mostly, what has changed of a peer is its traffic.
        [peer for peer in found if peers.get(peer.public_key) != peer],
        gone.difference([peer.public_key for peer in found]),
    )
    if len(peers) != len(lines) - 1:
        raise ValueError("a peer is there twice")
    if interface not in last and len(last) >= _MOST_INTERFACES:
        last.clear()
    last[interface] = now, peers
    return {interface: replace(device, peers=peers)}


def _device(fields: List[str]) -> Device:
    private, public, port, fwmark = fields
    return Device(_none(private), _none(public), int(port), 0 if fwmark == "off" else int(fwmark, 16), {})


def _peer(fields: List[str]) -> Peer:
    key, preshared, endpoint, allowed, _handshake, _rx, _tx, keepalive = fields
    nets: Tuple[str, ...]
    if "," in allowed:
        nets = tuple(sorted(allowed.split(",")))
    else:
        nets = () if allowed == "(none)" else (allowed,)
    return Peer(
        key,
        nets,
        None if preshared == "(none)" else preshared,
        0 if keepalive == "off" else int(keepalive),
        None if endpoint == "(none)" else endpoint,
    )


def parse_traffic(text: str, interface: Optional[str] = None) -> Dict[str, Dict[str, Traffic]]:
    """Return per interface and public key what a dump says of handshakes and bytes; `interface` as for parse_dump."""
    traffic: Dict[str, Dict[str, Traffic]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        name = fields.pop(0) if interface is None else interface
        if len(fields) == 8:
            traffic.setdefault(name, {})[fields[0]] = Traffic(int(fields[4]), int(fields[5]), int(fields[6]))
    return traffic
