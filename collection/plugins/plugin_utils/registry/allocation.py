# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node, port, subnet and addresses are free.

All of it is for use within `Registry.write`: there is one writer at a time, so what is free stays free until it is
taken by a row in the same transaction. Nothing is taken here.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from netaddr import IPAddress, IPNetwork
from sqlalchemy import CompoundSelect, String, Subquery, case, cast, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import network
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.counted import counted
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    Invalid,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    LONGEST_PREFIX,
    PREFIX6,
    effective,
)

LAST_PORT = 65535
# Of a subnet's addresses the first is the network's, the second the instance's own and the last the broadcast's.
_FIRST_OFFSET = 2
_NOT_FOR_PEERS = 3

# ---- nodes


@dataclass(frozen=True)
class Place:
    """Where a new instance can be."""

    node: Node
    listen_port: int
    subnet: str
    subnet6: str


def find_place(
    session: Session, new_peers: int, node: Node | None = None, prefix_length: int | None = None
) -> Place:
    """A place for a new instance with `new_peers` peers: on `node`, else on the first of `nodes_with_room` that has a
    port and subnets left, too. Without `prefix_length` the subnet is as large as default_prefix_length says.

    Raises Conflict (`node` is disabled), Full or Invalid (prefix_length).
    """
    if node is not None:
        require_room(session, node, new_peers)
        return _place_on(session, node, new_peers, prefix_length)
    reasons = []
    for one in nodes_with_room(session, new_peers):
        try:
            return _place_on(session, one, new_peers, prefix_length)
        except (Full, Invalid) as error:
            reasons.append(str(error))
    if len(reasons) == 1:
        raise Full(reasons[0])
    raise Full(
        f"none of {len(reasons)} nodes with room for the peers has all that is needed: {reasons[0]}; …"
    )


def _place_on(session: Session, node: Node, new_peers: int, prefix_length: int | None) -> Place:
    length = default_prefix_length(node.ip_pool_cidr, new_peers) if prefix_length is None else prefix_length
    subnet = free_subnet(session, node, length)
    most = (1 << 32 - length) - _NOT_FOR_PEERS
    if new_peers > most:
        raise Full(
            f"a /{length} of node {node.name} has addresses for {counted(most, 'peer')}, not for {new_peers}"
        )
    base = effective(None, node).listen_port_base
    return Place(node, free_port(session, node, base), subnet, free_subnet6(session, node))


def nodes_with_room(session: Session, new_peers: int) -> list[Node]:
    """Where a new instance with `new_peers` peers may go: nodes that are enabled, have a weight and have room, first
    the one with the fewest peers for its weight. An instance without peers counts as one. Raises Full when there is
    none."""
    load = _load()
    rows = session.execute(
        select(Node, func.coalesce(load.c.peers, 0), func.coalesce(load.c.weighs, 0)).outerjoin(
            load, load.c.node_id == Node.id
        )
    ).all()
    # PostgreSQL's sums are decimals.
    nodes: list[tuple[Node, int, int]] = [(node, int(peers), int(weighs)) for node, peers, weighs in rows]
    willing = [row for row in nodes if row[0].enabled and row[0].weight > 0]
    roomy = [row for row in willing if _missing(row[0], row[1], new_peers) <= 0]
    if roomy:
        roomy.sort(key=lambda row: (Fraction(row[2], row[0].weight), row[0].name))
        return [node for node, _peers, _weighs in roomy]
    if willing:
        node, peers, _weighs = min(
            willing, key=lambda row: (_missing(row[0], row[1], new_peers), row[0].name)
        )
        raise Full(
            f"no node has room for {counted(new_peers, 'new peer')}: of {counted(len(willing), 'node')} that "
            f"take new instances, {node.name} comes closest, with {peers} of at most {node.max_peers}: "
            f"{_missing(node, peers, new_peers)} too many"
        )
    disabled = sum(not node.enabled for node, _peers, _weighs in nodes)
    raise Full(
        f"no node takes new instances: of {counted(len(nodes), 'node')}, {disabled} disabled and "
        f"{len(nodes) - disabled} enabled with weight 0"
    )


def require_room(session: Session, node: Node, new_peers: int, instance: Instance | None = None) -> None:
    """Make sure that a node that was asked for by name can take `new_peers` more.

    `instance`: the one that they are for. If it is on this node, the node may be disabled; if it moves here, what an
    earlier attempt reserved for it does not count. Raises Conflict (disabled) or Full.
    """
    if not node.enabled and (instance is None or instance.node_id != node.id):
        raise Conflict(f"node {node.name} is disabled: it takes no new instances")
    load = _load(node, None if instance is None or instance.node_id == node.id else instance)
    peers = int(session.scalar(select(func.coalesce(func.sum(load.c.peers), 0))) or 0)
    missing = _missing(node, peers, new_peers)
    if missing > 0:
        raise Full(
            f"node {node.name} has no room for {counted(new_peers, 'new peer')}: it has {peers} of at most "
            f"{node.max_peers}: {missing} too many"
        )


def _missing(node: Node, peers: int, new_peers: int) -> int:
    """How many peers would be too many."""
    return 0 if node.max_peers is None else peers + new_peers - node.max_peers


def _load(node: Node | None = None, but: Instance | None = None) -> Subquery:
    """By node (or of one): `peers`, and what its instances weigh together, without `but`."""
    placed = placed_on(node, but).subquery()
    sizes = (
        # Counted by the column that the index has: SQLite then never looks at a peer's row.
        select(placed.c.node_id, func.count(Peer.instance_id).label("peers"))
        .outerjoin(Peer, Peer.instance_id == placed.c.instance_id)
        .group_by(placed.c.node_id, placed.c.instance_id)
        .subquery()
    )
    weighs = case((sizes.c.peers > 0, sizes.c.peers), else_=1)
    return (
        select(sizes.c.node_id, func.sum(sizes.c.peers).label("peers"), func.sum(weighs).label("weighs"))
        .group_by(sizes.c.node_id)
        .subquery()
    )


def placed_on(node: Node | None, but: Instance | None = None) -> CompoundSelect[tuple[int, str]]:
    """Instances by node, without `but`: those that are there, and those that are on their way in a transfer."""
    there = select(Instance.id.label("instance_id"), Instance.node_id.label("node_id"))
    coming = (
        select(Instance.id, Teardown.node_id)
        .join(Teardown, Teardown.instance_name == Instance.name)
        .where(
            Teardown.reason == "reserved",
            # Another instance may have had the name.
            Teardown.interface == literal("wg") + cast(Instance.id, String),
            Teardown.node_id != Instance.node_id,
        )
    )
    if node is not None:
        there = there.where(Instance.node_id == node.id)
        coming = coming.where(Teardown.node_id == node.id)
    if but is not None:
        there = there.where(Instance.id != but.id)
        coming = coming.where(Instance.id != but.id)
    return union_all(there, coming)


# ---- ports and subnets


def free_port(session: Session, node: Node, base: int) -> int:
    """The lowest port from `base` on that no instance of the node has and no teardown. Raises Full."""
    taken = set(
        session.scalars(
            union_all(
                select(Instance.listen_port).where(Instance.node_id == node.id, Instance.listen_port >= base),
                select(Teardown.listen_port).where(Teardown.node_id == node.id, Teardown.listen_port >= base),
            )
        )
    )
    for port in range(base, LAST_PORT + 1):
        if port not in taken:
            return port
    raise Full(f"node {node.name} has no free port: all from {base} to {LAST_PORT} are taken")


def default_prefix_length(pool: str, peers: int) -> int:
    """The prefix length of a new instance's subnet: 1/256 of the pool, at the least a /28 and at the most a /24, but
    with room for twice as many peers as it begins with, as far as the pool goes."""
    whole = IPNetwork(pool).prefixlen
    usual = min(max(whole + 8, 24), 28)
    # The smallest power of two that holds them all.
    needed = 32 - (2 * peers + _NOT_FOR_PEERS - 1).bit_length()
    return max(whole, min(usual, needed))


def free_subnet(session: Session, node: Node, prefix_length: int) -> str:
    """The lowest subnet of the node's pool of which nobody has an address.

    Subnets stay with the customer in a transfer, so they are unique in the whole registry, also where the pools of
    nodes overlap; and no peer on this node has a network in it. Raises Invalid (prefix_length) or Full.
    """
    pool = IPNetwork(node.ip_pool_cidr)
    if not pool.prefixlen <= prefix_length <= LONGEST_PREFIX:
        raise Invalid(
            "prefix_length",
            f"{prefix_length} is not between {pool.prefixlen} (all of {pool}, the pool of node {node.name}) and "
            f"{LONGEST_PREFIX}",
        )
    return _free_subnet(session, node, pool, prefix_length, Instance.subnet, Teardown.subnet)


def free_subnet6(session: Session, node: Node) -> str:
    """The same for IPv6, always a /64. Raises Full."""
    pool = IPNetwork(node.ip6_pool_cidr)
    return _free_subnet(session, node, pool, PREFIX6, Instance.subnet6, Teardown.subnet6)


def new_ip6_pool() -> str:
    """A random unique local /48 (RFC 4193, 3.1: fd, then 40 random bits)."""
    return str(IPNetwork((0xFD << 120 | secrets.randbits(40) << 80, 48), version=6))


def _free_subnet(
    session: Session,
    node: Node,
    pool: IPNetwork,
    length: int,
    *columns: InstrumentedAttribute[str],
) -> str:
    bits = 128 if pool.version == 6 else 32
    of_family = PeerAllowedIp.network.like("%:%") if bits == 128 else PeerAllowedIp.network.not_like("%:%")
    placed = placed_on(node).subquery()
    texts = session.scalars(
        union_all(
            *(select(column) for column in columns),
            select(PeerAllowedIp.network)
            .join(placed, placed.c.instance_id == PeerAllowedIp.instance_id)
            .where(of_family),
        )
    )
    taken = [span for span in map(_span, texts) if span[0] <= pool.last and span[1] >= pool.first]
    size = 1 << (bits - length)
    first = _lowest_gap(pool.first, pool.last, size, taken)
    if first is None:
        raise Full(
            f"no /{length} is free in {pool}, the pool of node {node.name}: all {pool.size // size} are taken, "
            "in whole or in part"
        )
    return str(IPNetwork((first, length), version=pool.version))


def _span(text: str) -> tuple[int, int]:
    """First and last address of a network, as numbers."""
    bits, first, length = network(text)
    return first, first + (1 << (bits - length)) - 1


def _lowest_gap(first: int, last: int, size: int, taken: Iterable[tuple[int, int]]) -> int | None:
    """The lowest multiple of `size` in `first` to `last` from which `size` numbers are in none of the spans `taken`;
    `first` is a multiple of it. One pass over the spans in order."""
    candidate = first
    for start, end in sorted(taken):
        if start >= candidate + size:
            break
        if end >= candidate:
            candidate = (end // size + 1) * size
    return candidate if candidate + size - 1 <= last else None


# ---- addresses


def addresses_of(subnet: str, subnet6: str) -> tuple[str, str]:
    """An instance's own addresses with the prefix length: the first host of each subnet."""
    net, net6 = IPNetwork(subnet), IPNetwork(subnet6)
    return (
        f"{IPAddress(net.first + 1, 4)}/{net.prefixlen}",
        f"{IPAddress(net6.first + 1, 6)}/{net6.prefixlen}",
    )


def free_addresses(
    session: Session, instance: Instance, count: int, besides: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """For each of `count` new peers a /32 and a /128, at the same distance from the subnets' beginning: the lowest
    that no peer has and that are not in `besides`, networks that other new peers are to get. Raises Full."""
    net, net6 = IPNetwork(instance.subnet), IPNetwork(instance.subnet6)
    theirs = session.scalars(select(PeerAllowedIp.network).where(PeerAllowedIp.instance_id == instance.id))
    taken = []
    for text in (*theirs, *besides):
        start, end = _span(text)
        begin = net6.first if ":" in text else net.first
        taken.append((start - begin, end - begin))
    behind = net.size - 1  # the broadcast's
    taken.append((behind, behind))
    offsets: list[int] = []
    position = _FIRST_OFFSET
    for start, end in sorted(taken):
        offsets.extend(range(position, min(start, behind, position + count - len(offsets))))
        position = max(position, end + 1)
    if len(offsets) < count:
        raise Full(
            f"instance {instance.name} has addresses for {len(offsets)} more peers, not for {count}: its subnet "
            f"{net} has {net.size - _NOT_FOR_PEERS} for peers"
        )
    return [(_host(net.first + offset, 32), _host(net6.first + offset, 128)) for offset in offsets]


def _host(number: int, bits: int) -> str:
    """As module_utils.addresses has it; netaddr would take a second for ten thousand peers."""
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return f"{socket.inet_ntop(family, number.to_bytes(bits // 8, 'big'))}/{bits}"
