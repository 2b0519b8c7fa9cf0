# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which routes an interface needs for its peers' AllowedIPs."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Dict, FrozenSet, Iterable, List, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    covered,
    network,
    outermost,
    outside,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import worked_out
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer, Route


def wanted_routes(table: str, addresses: Iterable[str], peers: Iterable[Peer]) -> FrozenSet[Route]:
    """The routes for `peers`, as wg-quick would set them, without the superfluous ones.

    table "off": none. "auto": into the main table, for all that the interface's own subnets (`addresses`) do not
    cover already. A number: into that table, for every AllowedIP. A network within another one needs no route.
    """
    if table == "off":
        return frozenset()
    networks: List[str] = [text for peer in peers for text in peer.allowed_ips]
    if table == "auto":
        apart = outside(networks, [network(address) for address in addresses])
        return frozenset(Route(text, "main") for text in outermost(apart))
    return frozenset(Route(text, table) for text in outermost(networks))


# Asked several times in a run for each network of each peer.
@lru_cache(maxsize=1 << 17)
def _within(text: str, addresses: FrozenSet[str]) -> bool:
    """Whether a network lies within the subnet of one of `addresses`."""
    return any(covered(network(text), network(address)) for address in addresses)


def routes_for(table: str, addresses: Iterable[str], peers: Dict[str, Peer]) -> FrozenSet[Route]:
    """As wanted_routes, of a whole map of peers."""
    if table != "auto":
        return wanted_routes(table, addresses, peers.values())
    own = frozenset(addresses)

    def outside(some: Iterable[Optional[Peer]]) -> List[str]:
        return [text for peer in some if peer for text in peer.allowed_ips if not _within(text, own)]

    found = worked_out(
        peers,
        ("outside", own),
        lambda peers: Counter(outside(peers.values())),
        lambda before, changes: _changed(
            before, outside(was for was, _is in changes), outside(now for _was, now in changes)
        ),
    )
    return frozenset(Route(text, "main") for text in outermost(list(found)))


def default_routes(peers: Dict[str, Peer]) -> List[str]:
    """Those AllowedIPs that mean everything: a default route."""

    def everything(some: Iterable[Optional[Peer]]) -> List[str]:
        return [text for peer in some if peer for text in peer.allowed_ips if text.endswith("/0")]

    found = worked_out(
        peers,
        "default routes",
        lambda peers: Counter(everything(peers.values())),
        lambda before, changes: _changed(
            before, everything(was for was, _is in changes), everything(now for _was, now in changes)
        ),
    )
    return list(found)


def _changed(before: Counter[str], less: List[str], more: List[str]) -> Counter[str]:
    """The texts of `before`, less some and with some more."""
    found = Counter(before)
    found.subtract(less)
    found.update(more)
    return +found
