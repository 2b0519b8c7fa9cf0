"""Subnets of instances and addresses of peers: the lowest that are free, and never one twice."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import check_interface_address
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    addresses_of,
    default_prefix_length,
    free_addresses,
    free_port,
    free_subnet,
    free_subnet6,
    new_ip6_pool,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Full,
    Invalid,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    PeerAllowedIp,
)
from tests.unit.plugins.plugin_utils.registry import rolled_back
from tests.unit.plugins.plugin_utils.registry.rolled_back import statements
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_instance,
    add_node,
    add_peer,
    add_teardown,
    an_instance,
    left_of,
)

registry = rolled_back.registry
session = rolled_back.session

# A transaction each, on one database of each kind: enough to see what differs between them.
on_databases = settings(max_examples=40)


# ---- subnets


@pytest.mark.parametrize(
    ("pool", "peers", "length"),
    [
        ("10.0.0.0/8", 0, 24), ("10.0.0.0/8", 126, 24), ("10.0.0.0/8", 127, 23), ("10.0.0.0/12", 1, 24),
        ("10.0.0.0/16", 0, 24), ("10.0.0.0/17", 1, 25), ("10.0.0.0/20", 1, 28), ("10.0.0.0/20", 6, 28),
        ("10.0.0.0/20", 7, 27), ("10.0.0.0/24", 0, 28), ("10.0.0.0/24", 100, 24), ("10.0.0.0/24", 1000, 24),
        ("10.0.0.0/27", 1, 28), ("10.0.0.0/28", 1, 28), ("10.0.0.0/30", 0, 30), ("10.0.0.0/30", 100, 30),
        ("10.0.0.0/8", 10_000, 17), ("10.0.0.0/17", 10_000, 17), ("10.0.0.0/18", 10_000, 18),
        ("10.0.0.0/8", 10**9, 8),
    ],
)  # fmt: skip
def test_how_large_a_subnet_is(pool: str, peers: int, length: int) -> None:
    assert default_prefix_length(pool, peers) == length


@given(st.integers(8, 30), st.integers(0, 100_000))
def test_a_subnet_has_room_for_twice_the_peers_if_the_pool_has(whole: int, peers: int) -> None:
    usual = max(24, min(28, whole + 8))
    large_enough = [one for one in range(whole, max(usual, whole) + 1) if 2 ** (32 - one) - 3 >= 2 * peers]
    assert default_prefix_length(f"0.0.0.0/{whole}", peers) == max(large_enough, default=whole)


def test_subnets_are_given_from_the_beginning_of_the_pool(session: Session) -> None:
    node = add_node(session, ip_pool_cidr="10.8.0.0/22")
    for wanted, subnet in (
        (26, "10.8.0.0/26"), (24, "10.8.1.0/24"), (26, "10.8.0.64/26"), (25, "10.8.0.128/25"), (30, "10.8.2.0/30"),
        (30, "10.8.2.4/30"), (29, "10.8.2.8/29"), (24, "10.8.3.0/24"),
    ):  # fmt: skip
        assert free_subnet(session, node, wanted) == subnet
        add_instance(session, node, subnet=subnet)
    with pytest.raises(
        Full,
        match=r"^no /24 is free in 10\.8\.0\.0/22, the pool of node node1: all 4 are taken, in whole or in part$",
    ):
        free_subnet(session, node, 24)
    assert free_subnet(session, node, 25) == "10.8.2.128/25"


def test_a_subnet_is_as_large_as_the_pool_at_the_most(session: Session) -> None:
    node = add_node(session, ip_pool_cidr="10.8.0.0/22")
    assert free_subnet(session, node, 22) == "10.8.0.0/22"
    for length in (21, 31, 0, -1, 33):
        with pytest.raises(
            Invalid, match=rf"^prefix_length: {length} is not between 22 \(all of 10.8.0.0/22"
        ):
            free_subnet(session, node, length)


def test_what_others_have_is_not_given_again(session: Session) -> None:
    node = add_node(session, "node1", ip_pool_cidr="10.8.0.0/20")
    other = add_node(session, "node2", ip_pool_cidr="10.8.0.0/16")
    there = add_instance(session, other, subnet="10.8.0.0/24")  # of another node, whose pool overlaps
    add_teardown(session, node, subnet="10.8.1.0/25")
    add_teardown(session, other, subnet="10.8.2.128/25")
    here = add_instance(session, node, subnet="10.9.0.0/24")  # it came with its subnet
    add_peer(session, here, "10.9.0.2/32", "fd00:8:0:1::/64", "10.8.3.77/32", "10.8.4.0/23")
    add_peer(session, there, "10.8.6.0/24")  # a network behind a peer elsewhere is no trouble here
    assert free_subnet(session, node, 24) == "10.8.6.0/24"
    assert free_subnet(session, node, 25) == "10.8.1.128/25"
    assert free_subnet(session, other, 24) == "10.8.3.0/24"


def test_networks_on_their_way_to_a_node_are_spared(session: Session) -> None:
    source, target = add_node(session, "node1"), add_node(session, "node2", ip_pool_cidr="10.9.0.0/16")
    moving = add_instance(session, source)
    add_peer(session, moving, "10.9.0.0/24")
    assert free_subnet(session, target, 24) == "10.9.0.0/24"
    add_teardown(session, target, **left_of(moving, "reserved"))
    assert free_subnet(session, target, 24) == "10.9.1.0/24"


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.8.0.0/22", "10.8.0.0/32", "10.8.3.255/32", "10.8.1.7/32"])
def test_where_a_peer_has_an_address_there_is_no_subnet(session: Session, text: str) -> None:
    node = add_node(session, ip_pool_cidr="10.8.0.0/22")
    peer = add_peer(session, add_instance(session, node), "10.7.255.255/32", "10.8.4.0/32", "::/0")
    assert free_subnet(session, node, 22) == "10.8.0.0/22"
    session.add(PeerAllowedIp(peer_id=peer.id, instance_id=peer.instance_id, network=text))
    with pytest.raises(Full):
        free_subnet(session, node, 22)


def test_ipv6_subnets_are_given_from_the_beginning_of_the_pool(session: Session) -> None:
    node = add_node(session, ip6_pool_cidr="fd00:8::/62")
    add_instance(session, node, subnet6="fd00:8::/64")
    add_teardown(session, node, subnet6="fd00:8:0:2::/64")
    assert free_subnet6(session, node) == "fd00:8:0:1::/64"
    add_peer(session, add_instance(session, node), "fd00:8:0:1:ffff::/80", "10.8.0.0/16")
    assert free_subnet6(session, node) == "fd00:8:0:3::/64"
    add_instance(session, add_node(session, "node2"), subnet6="fd00:8:0:3::/64")
    with pytest.raises(
        Full,
        match=r"^no /64 is free in fd00:8::/62, the pool of node node1: all 4 are taken, in whole or in part$",
    ):
        free_subnet6(session, node)


def test_five_thousand_subnets_and_the_next(session: Session) -> None:
    node = add_node(session, ip_pool_cidr="10.0.0.0/8", ip6_pool_cidr="fd00:8::/48")
    session.add_all(
        Instance(
            name=f"{number}@example.com",
            node_id=node.id,
            listen_port=10000 + number,
            public_key=f"{number:043}=",
            private_key="",
            subnet=f"10.{number >> 8}.{number & 255}.0/24",
            subnet6=f"fd00:8:0:{number:x}::/64",
        )
        for number in range(5001)
        if number != 4321
    )
    with statements(session) as seen:
        assert free_subnet(session, node, 24) == "10.16.225.0/24"
        assert free_subnet(session, node, 23) == "10.19.138.0/23"
        assert free_subnet6(session, node) == "fd00:8:0:10e1::/64"
        assert free_port(session, node, 10000) == 14321
    assert sum(statement.startswith("SELECT") for statement in seen) == 4


def test_the_end_of_the_address_space(session: Session) -> None:
    node = add_node(session, ip_pool_cidr="223.255.255.0/24", ip6_pool_cidr="3fff:ffff:ffff:ffff::/64")
    assert free_subnet(session, node, 24) == "223.255.255.0/24"
    assert free_subnet6(session, node) == "3fff:ffff:ffff:ffff::/64"


lengths = st.integers(26, 30)


@on_databases
@given(st.lists(st.tuples(lengths, st.none() | st.integers(0, 20)), max_size=16))
def test_subnets_never_overlap_and_are_the_lowest_that_are_free(
    registry: Registry, steps: list[tuple[int, int | None]]
) -> None:
    """Each step takes a subnet and gives back one, if it says so."""
    pool = ipaddress.IPv4Network("10.8.0.0/25")
    with registry.write(keep=False) as session:
        node = add_node(session, ip_pool_cidr=str(pool))
        held: dict[ipaddress.IPv4Network, Instance] = {}
        for length, given_back in steps:
            free = [one for one in pool.subnets(new_prefix=length) if not any(map(one.overlaps, held))]
            try:
                found = ipaddress.IPv4Network(free_subnet(session, node, length))
            except Full:
                assert not free
            else:
                assert found == free[0]
                held[found] = add_instance(session, node, subnet=str(found))
            if given_back is not None and held:
                subnet = sorted(held)[given_back % len(held)]
                session.delete(held.pop(subnet))  # not flushed: what is free is seen all the same


@on_databases
@given(
    st.lists(
        st.tuples(st.integers(0, 127), st.integers(22, 32)).map(
            lambda pair: ipaddress.IPv4Network((f"10.8.0.{pair[0]}", pair[1]), strict=False)
        ),
        max_size=12,
        unique=True,
    ),
    lengths,
)
def test_whatever_is_taken_the_lowest_free_one_is_found(
    registry: Registry, taken: list[ipaddress.IPv4Network], length: int
) -> None:
    pool = ipaddress.IPv4Network("10.8.0.0/25")
    free = [one for one in pool.subnets(new_prefix=length) if not any(map(one.overlaps, taken))]
    with registry.write(keep=False) as session:
        node = add_node(session, ip_pool_cidr=str(pool))
        instance = add_instance(session, node)
        for position, network in enumerate(taken):
            if position % 3 == 0:
                add_teardown(session, node, subnet=str(network))
            elif position % 3 == 1:
                add_peer(session, instance, str(network))
            else:
                add_instance(session, node, subnet=str(network))
        try:
            assert free_subnet(session, node, length) == str(free[0] if free else None)
        except Full:
            assert not free


def test_an_ipv6_pool_is_unique_local_and_made_by_chance() -> None:
    pools = {new_ip6_pool() for _ in range(50)}
    assert len(pools) == 50
    for text in pools:
        pool = ipaddress.IPv6Network(text)
        assert pool.prefixlen == 48
        assert pool.subnet_of(ipaddress.IPv6Network("fd00::/8"))
        assert check_interface_address(text, "f") == text


# ---- addresses


@pytest.mark.parametrize(
    ("subnet", "subnet6", "own"),
    [
        ("10.8.1.0/24", "fd00:8:0:1::/64", ("10.8.1.1/24", "fd00:8:0:1::1/64")),
        ("10.8.1.4/30", "fd00::/64", ("10.8.1.5/30", "fd00::1/64")),
        ("10.0.0.0/8", "2001:db8::/64", ("10.0.0.1/8", "2001:db8::1/64")),
        ("10.0.0.0/24", "fd00:0:0:1::/64", ("10.0.0.1/24", "fd00:0:0:1::1/64")),
    ],
)
def test_an_instance_has_the_first_host_of_each_subnet(
    subnet: str, subnet6: str, own: tuple[str, str]
) -> None:
    assert addresses_of(subnet, subnet6) == own
    assert tuple(check_interface_address(text, "f") for text in own) == own


def test_peers_get_the_lowest_free_addresses(session: Session) -> None:
    instance = an_instance(session)
    assert free_addresses(session, instance, 0) == []
    assert free_addresses(session, instance, 3) == [
        ("10.8.1.2/32", "fd00:8:0:1::2/128"),
        ("10.8.1.3/32", "fd00:8:0:1::3/128"),
        ("10.8.1.4/32", "fd00:8:0:1::4/128"),
    ]
    add_peer(session, instance, "10.8.1.2/32", "fd00:8:0:1::2/128")
    add_peer(session, instance, "10.8.1.4/32")  # its IPv6 address stays free with it
    add_peer(session, instance, "fd00:8:0:1::6/127")
    add_peer(session, instance, "10.8.1.8/29", "192.0.2.0/24", "2001:db8::/32")
    assert [address for address, _ in free_addresses(session, instance, 4)] == [
        "10.8.1.3/32", "10.8.1.5/32", "10.8.1.16/32", "10.8.1.17/32",
    ]  # fmt: skip


def test_what_other_new_peers_are_to_get_is_spared(session: Session) -> None:
    instance = an_instance(session)
    besides = ["10.8.1.2/31", "fd00:8:0:1::4/128", "192.0.2.0/24"]
    assert free_addresses(session, instance, 2, besides) == [
        ("10.8.1.5/32", "fd00:8:0:1::5/128"),
        ("10.8.1.6/32", "fd00:8:0:1::6/128"),
    ]


def test_what_peers_of_others_have_does_not_matter(session: Session) -> None:
    instance = an_instance(session)
    add_peer(session, add_instance(session, instance.node), "10.8.1.2/32")
    assert free_addresses(session, instance, 1)[0][0] == "10.8.1.2/32"


def test_the_smallest_subnet_has_one_address_for_a_peer(session: Session) -> None:
    instance = an_instance(session, "10.8.1.4/30")
    add_peer(session, instance, "10.8.1.0/30", "10.8.1.12/30", "192.0.2.0/24", "fd00:8:0:1::ff/128")
    assert free_addresses(session, instance, 1) == [("10.8.1.6/32", "fd00:8:0:1::2/128")]
    for count in (2, 10_000_000):
        with pytest.raises(Full):
            free_addresses(session, instance, count)


def test_a_full_subnet_is_told_with_its_figures(session: Session) -> None:
    instance = an_instance(session, "10.8.1.0/28")
    add_peer(session, instance, "10.8.1.8/29")
    assert len(free_addresses(session, instance, 6)) == 6
    with pytest.raises(
        Full,
        match=rf"^instance {re.escape(instance.name)} has addresses for 6 more peers, not for 7: its subnet "
        r"10\.8\.1\.0/28 has 13 for peers$",
    ):
        free_addresses(session, instance, 7)


def test_ten_thousand_addresses_take_one_query(session: Session) -> None:
    instance = an_instance(session, "10.8.0.0/17")
    add_peer(session, instance, *(f"10.8.{number >> 8}.{number & 255}/32" for number in range(2, 8002, 2)))
    with statements(session) as seen:
        found = free_addresses(session, instance, 10_000)
    assert len(seen) == 1
    # Every second one up to 8000, then each.
    wanted = [*range(3, 8002, 2), *range(8002, 14002)]
    assert found == [
        (
            f"{ipaddress.IPv4Address('10.8.0.0') + one}/32",
            f"{ipaddress.IPv6Address('fd00:8:0:1::') + one}/128",
        )
        for one in wanted
    ]


@on_databases
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 63), st.integers(25, 32)).map(
                lambda pair: str(ipaddress.ip_network((f"10.8.1.{pair[0]}", pair[1]), strict=False))
            ),
            st.tuples(st.integers(0, 63), st.integers(121, 128)).map(
                lambda pair: str(ipaddress.ip_network((f"fd00:8:0:1::{pair[0]:x}", pair[1]), strict=False))
            ),
        ),
        max_size=10,
        unique=True,
    ),
    st.integers(0, 10),
    st.integers(0, 40),
)
def test_whatever_peers_have_new_ones_get_the_lowest_free(
    registry: Registry, texts: list[str], how_many_are_new: int, count: int
) -> None:
    net, net6 = ipaddress.ip_network("10.8.1.0/26"), ipaddress.ip_network("fd00:8:0:1::/64")
    networks = [ipaddress.ip_network(text) for text in texts]
    free = [
        (f"{net[offset]}/32", f"{net6[offset]}/128")
        for offset in range(2, 63)
        if not any(net[offset] in one or net6[offset] in one for one in networks)
    ]
    with registry.write(keep=False) as session:
        instance = an_instance(session, str(net), str(net6))
        add_peer(session, instance, *texts[how_many_are_new:])
        try:
            assert free_addresses(session, instance, count, texts[:how_many_are_new]) == free[:count]
            assert len(free) >= count
        except Full:
            assert len(free) < count
