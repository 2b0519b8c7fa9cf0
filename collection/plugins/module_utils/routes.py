# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which routes an interface needs for its peers' AllowedIPs."""

from __future__ import annotations

from typing import FrozenSet, Iterable, List

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import network, outermost, outside
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


def default_routes(peers: Iterable[Peer]) -> List[str]:
    """Those AllowedIPs that mean everything: a default route."""
    return [text for peer in peers for text in peer.allowed_ips if text.endswith("/0")]
