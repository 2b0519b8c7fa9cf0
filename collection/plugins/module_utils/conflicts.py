# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks on one node belong to one interface each: nobody's route is taken from them.

The kernel would let a second route replace the first, or a narrower one take a part of it, without a word: the
traffic of another customer, or of the node itself, would go into this interface's tunnel.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, List, NamedTuple, Set

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import network
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Link, Route


class Held(NamedTuple):
    """A network in a routing table, and the interface whose it is."""

    table: str
    bits: int
    first: int
    length: int
    text: str
    owner: str


def held_networks(
    links: Dict[str, Link], routes: Dict[str, FrozenSet[Route]], wireguard: Set[str], but: str
) -> List[Held]:
    """What the node's interfaces other than `but` hold: the subnets of their addresses, and the routes of those that
    are WireGuard's. Other routes do not count: a narrower one beside them is how routing is meant to be."""
    found: List[Held] = []
    for name, link in links.items():
        if name not in (but, "lo"):
            found += [_held("main", text, name) for text in link.addresses if not text.startswith("fe80:")]
    for name, some in routes.items():
        if name != but and name in wireguard:
            found += [_held(route.table, route.network, name) for route in some]
    return found


def _held(table: str, text: str, owner: str) -> Held:
    return Held(table, *network(text), text, owner)


def refuse_conflicts(name: str, before: InterfaceState, wanted: InterfaceState, held: List[Held]) -> None:
    """Raise Refused when a network that interface `name` is to get newly overlaps with one of `held`."""
    if wanted.link is None:
        return
    have = before.link.addresses if before.link else frozenset()
    asked = [("main", text) for text in wanted.link.addresses - have if not text.startswith("fe80:")]
    asked += [(route.table, route.network) for route in wanted.routes - before.routes]
    if not asked or not held:
        return
    # In the order of table and first address, an overlap is found between neighbours or within an open network.
    entries = sorted([*held, *(_held(table, text, "") for table, text in asked)])
    open_networks: List[Held] = []
    for entry in entries:
        open_networks = [other for other in open_networks if _holds(other, entry)]
        for other in open_networks:
            if bool(entry.owner) != bool(other.owner):
                mine, theirs = (other, entry) if entry.owner else (entry, other)
                raise Refused(
                    f"{mine.text} of {name} overlaps with {theirs.text}, which is {theirs.owner}'s on this node: "
                    "its traffic would go astray"
                )
        open_networks.append(entry)


def _holds(outer: Held, inner: Held) -> bool:
    return (
        outer.table == inner.table
        and outer.bits == inner.bits
        and outer.length <= inner.length
        and outer.first >> (outer.bits - outer.length) == inner.first >> (outer.bits - outer.length)
    )
