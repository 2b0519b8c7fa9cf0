# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node, port, subnet and addresses are free; which networks nobody else has.

All of it is for use within `Registry.write`: there is one writer at a time, so what is free stays free until it is
taken by a row in the same transaction. Nothing is taken here.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from netaddr import IPAddress, IPNetwork
from sqlalchemy import CompoundSelect, String, Subquery, case, cast, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    covered,
    first_overlap,
    network,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
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
    """A place for a new instance with `new_peers` peers: on `node`, else on the first in the order of `choose_node`
    that has a port and subnets left, too. Without `prefix_length` the subnet is as large as default_prefix_length says.

    Raises Conflict (`node` is disabled), Full or Invalid (prefix_length).
    """
    if node is not None:
        require_room(session, node, new_peers)
        return _place_on(session, node, new_peers, prefix_length)
    reasons = []
    for one in _nodes_with_room(session, new_peers):
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
            f"a /{length} of node {node.name} has addresses for {_counted(most, 'peer')}, not for {new_peers}"
        )
    base = effective(None, node).listen_port_base
    return Place(node, free_port(session, node, base), subnet, free_subnet6(session, node))


def choose_node(session: Session, new_peers: int) -> Node:
    """The node that a new instance with `new_peers` peers goes to: of those that are enabled, have a weight and have
    room, the one with the fewest peers for its weight. An instance without peers counts as one. Raises Full."""
    return _nodes_with_room(session, new_peers)[0]


def _nodes_with_room(session: Session, new_peers: int) -> list[Node]:
    """At least one, the best first; else Full."""
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
            f"no node has room for {_counted(new_peers, 'new peer')}: of {_counted(len(willing), 'node')} that "
            f"take new instances, {node.name} comes closest, with {peers} of at most {node.max_peers}: "
            f"{_missing(node, peers, new_peers)} too many"
        )
    disabled = sum(not node.enabled for node, _peers, _weighs in nodes)
    raise Full(
        f"no node takes new instances: of {_counted(len(nodes), 'node')}, {disabled} disabled and "
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
            f"node {node.name} has no room for {_counted(new_peers, 'new peer')}: it has {peers} of at most "
            f"{node.max_peers}: {missing} too many"
        )


def _missing(node: Node, peers: int, new_peers: int) -> int:
    """How many peers would be too many."""
    return 0 if node.max_peers is None else peers + new_peers - node.max_peers


def _load(node: Node | None = None, but: Instance | None = None) -> Subquery:
    """By node (or of one): `peers`, and what its instances weigh together, without `but`."""
    placed = _placed(node, but).subquery()
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


def _placed(node: Node | None = None, but: Instance | None = None) -> CompoundSelect[tuple[int, str]]:
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
    placed = _placed(node).subquery()
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


# ---- addresses and networks


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
    placed = _placed(node, but).subquery()
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


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
