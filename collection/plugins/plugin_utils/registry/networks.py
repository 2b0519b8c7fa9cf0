# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which networks nobody else has: what peers ask for, and what moves along with an instance, overlaps with nothing.

As with `allocation`: what is free stays free until the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    covered,
    first_overlap,
    network,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    addresses_of,
    placed_on,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    Teardown,
)


def check_networks(
    session: Session, instance: Instance, wanted: Mapping[str, Sequence[object]]
) -> dict[str, tuple[str, ...]]:
    """The networks that new peers are to have behind them, in normal form, each once.

    `wanted`: by what the peer is called in messages, such as `peers[0]`; a peer that the instance has already is
    called by its public key, and what it has does not count. Raises Invalid for what is no network, and Conflict where
    one overlaps with another peer's, the instance's own address, the node's pool outside of the instance's subnet or
    what another instance on the node holds.
    """
    networks = {peer: _normal(peer, texts) for peer, texts in wanted.items()}
    whose = [(text, peer) for peer, texts in networks.items() for text in texts]
    overlap = first_overlap(whose)
    if overlap:
        (text, peer), (other_text, other) = overlap
        raise Conflict(f"{text} ({peer}) overlaps with {other_text} ({other})")
    own = [address.partition("/")[0] for address in addresses_of(instance.subnet, instance.subnet6)]
    held = [(f"{address}/{128 if ':' in address else 32}", "the instance's own address") for address in own]
    held += [
        (text, f"peer {name[:60] or public_key}")
        for text, name, public_key in session.execute(
            select(PeerAllowedIp.network, Peer.name, Peer.public_key)
            .join(Peer, Peer.id == PeerAllowedIp.peer_id)
            .where(PeerAllowedIp.instance_id == instance.id)
        )
        if public_key not in networks
    ]
    _refuse_overlap(whose, held)
    outside = _outside(instance, whose)
    if outside:
        node = session.get_one(Node, instance.node_id)
        _refuse_overlap(outside, [*_pools(node), *networks_held(session, node, instance)])
    return networks


def check_move(session: Session, instance: Instance, node: Node) -> None:
    """Make sure that what an instance has can be on `node` too. Raises Conflict where its subnets or its peers'
    networks overlap with what others hold there, or its peers' networks with the node's pool."""
    theirs = session.scalars(select(PeerAllowedIp.network).where(PeerAllowedIp.instance_id == instance.id))
    outside = _outside(instance, [(text, f"a peer of {instance.name}") for text in theirs])
    subnets = [(instance.subnet, instance.name), (instance.subnet6, instance.name)]
    _refuse_overlap(outside, _pools(node))
    _refuse_overlap([*subnets, *outside], networks_held(session, node, instance))


def networks_held(session: Session, node: Node, but: Instance | None = None) -> list[tuple[str, str]]:
    """The networks on a node and whose they are, without those of the instance `but`: subnets, also of what is still
    to be taken down, and networks behind peers."""
    placed = placed_on(node, but).subquery()
    here = Instance.id.in_(select(placed.c.instance_id))
    instances: dict[int, tuple[str, str, str]] = {
        number: (name, subnet, subnet6)
        for number, name, subnet, subnet6 in session.execute(
            select(Instance.id, Instance.name, Instance.subnet, Instance.subnet6).where(here)
        )
    }
    held = [(text, name) for name, *subnets in instances.values() for text in subnets]
    for name, interface, *subnets in session.execute(
        select(Teardown.instance_name, Teardown.interface, Teardown.subnet, Teardown.subnet6).where(
            Teardown.node_id == node.id
        )
    ):
        if but is None or interface != but.interface:
            held += [(text, name) for text in subnets]
    for number, text in session.execute(
        select(PeerAllowedIp.instance_id, PeerAllowedIp.network).join(
            placed, placed.c.instance_id == PeerAllowedIp.instance_id
        )
    ):
        name, subnet, subnet6 = instances[number]
        if not covered(network(text), network(subnet6 if ":" in text else subnet)):
            held.append((text, f"a peer of {name}"))
    return held


def _normal(peer: str, texts: Sequence[object]) -> tuple[str, ...]:
    try:
        found = [check_allowed_ip(text, f"{peer}.allowed_ips[{index}]") for index, text in enumerate(texts)]
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None
    return tuple(dict.fromkeys(found))


def _outside(instance: Instance, whose: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those networks that are not within the instance's own subnets, which nobody else has a part of."""
    subnet, subnet6 = network(instance.subnet), network(instance.subnet6)
    return [
        (text, owner)
        for text, owner in whose
        if not covered(network(text), subnet6 if ":" in text else subnet)
    ]


def _pools(node: Node) -> list[tuple[str, str]]:
    """Out of them others get their subnets, now or later."""
    return [(text, f"the pool of node {node.name}") for text in (node.ip_pool_cidr, node.ip6_pool_cidr)]


def _refuse_overlap(wanted: Iterable[tuple[str, str]], held: Iterable[tuple[str, str]]) -> None:
    """Raise Conflict when a network of one list (each with whose it is) overlaps with one of the other."""
    mine, theirs = dict(wanted), dict(held)
    overlap = first_overlap([(text, "mine") for text in mine] + [(text, "theirs") for text in theirs])
    if overlap:
        (text, side), (other_text, _other) = overlap
        if side == "theirs":
            text, other_text = other_text, text
        raise Conflict(f"{text} ({mine[text]}) overlaps with {other_text} ({theirs[other_text]})")
