from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import check_interface_address
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    Place,
    addresses_of,
    check_move,
    check_networks,
    choose_node,
    default_prefix_length,
    find_place,
    free_addresses,
    free_port,
    free_subnet,
    free_subnet6,
    networks_held,
    new_ip6_pool,
    require_room,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    make_engine,
    parse_url,
)
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
from tests.postgres.server import PostgresServer
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_instance,
    add_node,
    add_peer,
    add_peers,
    add_teardown,
    any_key,
    left_of,
)

# A transaction each, on one database of each kind: enough to see what differs between them.
on_databases = settings(max_examples=40)

Find = Callable[[Session, Node], object]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One empty registry for all tests here: each rolls back what it wrote."""
    server: PostgresServer | None = None
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('allocation')}/registry.db"
    else:
        server = request.getfixturevalue("postgres_server")
        assert isinstance(server, PostgresServer)
        name = server.create_database()
        url = server.url(name)
    engine = make_engine(parse_url(url))
    schema.upgrade(engine)
    secrets.use([Fernet.generate_key().decode()])
    found = Registry(engine)
    yield found
    found.close()
    if server is not None:
        server.drop_database(name)


@pytest.fixture
def session(registry: Registry) -> Iterator[Session]:
    with registry.write(keep=False) as session:
        yield session


@contextmanager
def statements(session: Session) -> Iterator[list[str]]:
    """The statements that the database gets meanwhile."""
    seen: list[str] = []
    connection = session.connection()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(connection, "before_cursor_execute", note)


# ---- nodes


def test_the_node_with_the_fewest_peers_gets_the_next(session: Session) -> None:
    for name, peers in (("node1", [5, 5]), ("node2", [9]), ("node3", [3, 4, 4])):
        node = add_node(session, name)
        for count in peers:
            add_instance(session, node, count)
    assert choose_node(session, 1).name == "node2"


def test_a_node_gets_its_share_by_weight(session: Session) -> None:
    light, heavy = add_node(session, "light", weight=1), add_node(session, "heavy", weight=10)
    add_instance(session, light, 2)
    add_instance(session, heavy, 19)
    assert choose_node(session, 1) is heavy
    add_peers(session, add_instance(session, heavy), 1)
    assert choose_node(session, 1) is heavy  # as many for its weight, and first by name
    add_instance(session, heavy)
    assert choose_node(session, 1) is light


def test_an_empty_instance_weighs_as_one_peer(session: Session) -> None:
    one, two = add_node(session, "node1"), add_node(session, "node2")
    add_instance(session, one)
    assert choose_node(session, 0) is two
    add_instance(session, two, 1)
    assert choose_node(session, 0) is one
    add_instance(session, one)
    assert choose_node(session, 0) is two


def test_of_equals_the_first_by_name_is_chosen(session: Session) -> None:
    for name in ("node-b", "node-B", "node-a", "node-c"):
        add_node(session, name)
    assert choose_node(session, 1).name == "node-B"  # by code point, on both databases


def test_disabled_nodes_and_those_without_weight_are_passed_over(session: Session) -> None:
    add_node(session, "node1", enabled=False)
    add_node(session, "node2", weight=0)
    busy = add_node(session, "node3")
    add_instance(session, busy, 50)
    assert choose_node(session, 1) is busy


def test_disconnected_instances_count(session: Session) -> None:
    one, two = add_node(session, "node1", max_peers=10), add_node(session, "node2")
    add_instance(session, one, 10, state="disconnected")
    add_instance(session, two, 20)
    assert choose_node(session, 1) is two


@pytest.mark.parametrize(
    ("there", "new", "most", "fits"),
    [(9, 1, 10, True), (10, 1, 10, False), (0, 10, 10, True), (0, 11, 10, False), (10, 0, 10, True), (0, 0, 0, True),
     (0, 1, 0, False), (3, 100000, None, True)],
)  # fmt: skip
def test_a_node_takes_max_peers_and_no_more(
    session: Session, there: int, new: int, most: int | None, fits: bool
) -> None:
    node = add_node(session, max_peers=most)
    add_instance(session, node, there)
    if fits:
        assert choose_node(session, new) is node
        require_room(session, node, new)
    else:
        with pytest.raises(Full):
            choose_node(session, new)
        with pytest.raises(Full):
            require_room(session, node, new)


def test_a_customer_who_does_not_fit_goes_where_there_is_room(session: Session) -> None:
    small, large = add_node(session, "node1", max_peers=10), add_node(session, "node2")
    add_instance(session, large, 5)
    assert choose_node(session, 10) is small
    assert choose_node(session, 11) is large


def test_what_is_on_its_way_to_a_node_counts_there(session: Session) -> None:
    source, target = add_node(session, "node1"), add_node(session, "node2", max_peers=10)
    moving = add_instance(session, source, 6)
    add_teardown(session, target, **left_of(moving, "reserved"))
    with pytest.raises(Full):
        require_room(session, target, 5)
    require_room(session, target, 4)
    require_room(session, target, 6, moving)  # tried again: what was reserved for it is its own
    require_room(session, add_node(session, "node3", max_peers=0), 0)
    moving.node = target
    require_room(session, target, 4)
    with pytest.raises(Full):
        require_room(session, target, 6)
    with pytest.raises(Full):
        require_room(session, target, 5, moving)


def test_what_is_to_be_taken_down_on_a_node_does_not_count_there(session: Session) -> None:
    source, target = add_node(session, "node1", max_peers=10), add_node(session, "node2")
    moved = add_instance(session, target, 6)
    add_teardown(session, source, **left_of(moved, "transferred"))
    add_teardown(
        session, source, instance_name=moved.name, reason="reserved"
    )  # of one before, that had its name
    require_room(session, source, 10)


def test_why_no_node_can_be_chosen_is_said(session: Session) -> None:
    with pytest.raises(
        Full, match=r"^no node takes new instances: of 0 nodes, 0 disabled and 0 enabled with weight 0$"
    ):
        choose_node(session, 1)
    add_node(session, "node1", enabled=False, weight=0)
    add_node(session, "node2", enabled=False)
    add_node(session, "node3", weight=0)
    with pytest.raises(
        Full, match=r"^no node takes new instances: of 3 nodes, 2 disabled and 1 enabled with weight 0$"
    ):
        choose_node(session, 1)
    add_instance(session, add_node(session, "node4", max_peers=10), 9)
    with pytest.raises(
        Full,
        match=r"^no node has room for 3 new peers: of 1 node that take new instances, node4 comes closest, "
        r"with 9 of at most 10: 2 too many$",
    ):
        choose_node(session, 3)
    add_node(session, "node5", max_peers=0)
    add_instance(session, add_node(session, "node6", max_peers=100), 98)
    with pytest.raises(
        Full,
        match=r"room for 3 new peers: of 3 nodes .* node6 comes closest, with 98 of at most 100: 1 too many$",
    ):
        choose_node(session, 3)


def test_a_node_that_is_asked_for_by_name_may_be_without_weight_but_not_disabled(session: Session) -> None:
    require_room(session, add_node(session, "node1", weight=0), 5)
    with pytest.raises(Conflict, match=r"^node node2 is disabled: it takes no new instances$"):
        require_room(session, add_node(session, "node2", enabled=False), 5)


def test_an_instance_on_a_disabled_node_gets_more_peers_but_none_moves_there(session: Session) -> None:
    node, other = add_node(session, "node1", enabled=False, max_peers=10), add_node(session, "node2")
    instance = add_instance(session, node, 5)
    require_room(session, node, 5, instance)
    with pytest.raises(
        Full, match=r"^node node1 has no room for 6 new peers: it has 5 of at most 10: 1 too many$"
    ):
        require_room(session, node, 6, instance)
    with pytest.raises(Conflict):
        require_room(session, node, 0, add_instance(session, other))


def test_one_query_for_any_number_of_nodes(session: Session) -> None:
    for number in range(30):
        add_instance(session, add_node(session, f"node{number:02}"), number + 1)
    with statements(session) as seen:
        assert choose_node(session, 1).name == "node00"
    assert len(seen) == 1


# ---- places


def test_a_place_is_all_that_a_new_instance_needs(session: Session) -> None:
    node = add_node(session, override_listen_port=40000)
    add_instance(session, node, listen_port=40000, subnet="10.8.0.0/24", subnet6="fd00:8::/64")
    found = Place(node, 40001, "10.8.1.0/24", "fd00:8:0:1::/64")
    assert find_place(session, 5) == find_place(session, 5, node) == found
    assert find_place(session, 5, prefix_length=22).subnet == "10.8.4.0/22"
    assert find_place(session, 500).subnet == "10.8.4.0/22"


def test_the_best_node_is_passed_over_when_something_else_than_room_is_lacking(session: Session) -> None:
    def nodes() -> list[Node]:
        return [add_node(session, f"node{number}", ip6_pool_cidr=f"fd00:{number}::/64") for number in (1, 2)]

    for lack in (
        lambda node: add_instance(session, node, subnet=node.ip_pool_cidr),
        lambda node: add_instance(session, node, subnet6=node.ip6_pool_cidr),
        lambda node: add_teardown(session, node, listen_port=65535),
        lambda node: setattr(node, "ip_pool_cidr", "10.9.0.0/29"),  # too small for 20 peers
    ):
        with session.begin_nested() as savepoint:
            best, second = nodes()
            best.override_listen_port = 65535
            second.ip_pool_cidr = "10.10.0.0/16"
            add_instance(session, second, 3)
            assert find_place(session, 20).node is best
            lack(best)
            assert find_place(session, 20).node is second
            with pytest.raises(Full):
                find_place(session, 20, best)
            savepoint.rollback()


def test_a_node_whose_pool_is_smaller_than_the_wanted_subnet_is_passed_over(session: Session) -> None:
    small = add_node(session, "node1", ip_pool_cidr="10.9.0.0/24")
    large = add_node(session, "node2")
    assert find_place(session, 0, prefix_length=24).node is small
    assert find_place(session, 0, prefix_length=23).node is large
    with pytest.raises(Invalid, match=r"^prefix_length: 23 is not between 24 "):
        find_place(session, 0, small, 23)


def test_why_there_is_no_place_is_said(session: Session) -> None:
    node = add_node(session, "node1", ip_pool_cidr="10.8.0.0/24", max_peers=1000)
    assert find_place(session, 253).subnet == "10.8.0.0/24"
    with pytest.raises(Full, match=r"^a /24 of node node1 has addresses for 253 peers, not for 254$"):
        find_place(session, 254)
    with pytest.raises(Full, match=r"^a /24 of node node1 has addresses for 253 peers, not for 300$"):
        find_place(session, 300)
    with pytest.raises(Full, match=r"^a /30 of node node1 has addresses for 1 peer, not for 2$"):
        find_place(session, 2, prefix_length=30)
    with pytest.raises(Full, match=r"^no node has room for 1001 new peers"):
        find_place(session, 1001)
    with pytest.raises(Full, match=r"^node node1 has no room for 1001 new peers"):
        find_place(session, 1001, node)
    add_node(session, "node2", ip_pool_cidr="10.9.0.0/24")
    with pytest.raises(
        Full,
        match=r"^none of 2 nodes with room for the peers has all that is needed: a /24 of node node1 has addresses "
        r"for 253 peers, not for 300; …$",
    ):
        find_place(session, 300)
    node.enabled = False
    with pytest.raises(Conflict):
        find_place(session, 1, node)


# ---- ports


def test_the_lowest_free_port_is_chosen(session: Session) -> None:
    node, other = add_node(session, "node1"), add_node(session, "node2")
    assert free_port(session, node, 51820) == 51820
    add_instance(session, node, listen_port=51820)
    add_instance(session, node, listen_port=51822)
    add_teardown(session, node, listen_port=51821)
    add_instance(session, other, listen_port=51823)
    assert free_port(session, node, 51820) == 51823
    assert free_port(session, node, 51822) == 51823
    assert free_port(session, node, 51821) == 51823
    assert free_port(session, node, 1) == 1
    assert free_port(session, other, 51820) == 51820


def test_ports_come_to_an_end(session: Session) -> None:
    node = add_node(session)
    add_instance(session, node, listen_port=65534)
    assert free_port(session, node, 65534) == 65535
    add_teardown(session, node, listen_port=65535)
    with pytest.raises(Full, match=r"^node node1 has no free port: all from 65534 to 65535 are taken$"):
        free_port(session, node, 65534)


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


def an_instance(session: Session, subnet: str = "10.8.1.0/24", subnet6: str = "fd00:8:0:1::/64") -> Instance:
    return add_instance(session, add_node(session), subnet=subnet, subnet6=subnet6)


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


# ---- networks


def test_networks_come_back_in_normal_form_each_once(session: Session) -> None:
    assert check_networks(
        session,
        an_instance(session),
        {
            "peers[0]": ["192.0.2.0/25", "192.0.2.1", "192.0.2.0/25"],
            "peers[1]": ["FD00:0:0::/48", "10.8.1.128/25", "fd00:8:0:1::ff"],
            "peers[2]": [],
        },
    ) == {
        "peers[0]": ("192.0.2.0/25", "192.0.2.1/32"),
        "peers[1]": ("fd00::/48", "10.8.1.128/25", "fd00:8:0:1::ff/128"),
        "peers[2]": (),
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("192.0.2.1/24", "'192.0.2.1/24' has host bits set; the network is 192.0.2.0/24"),
        ("192.0.2.0/33", "prefix length"),
        ("example.com", "'example.com' is not an IPv4 or IPv6 address"),
        ("{{ 7*7 }}", "is not an IPv4 or IPv6 address"),
        (5, "is not an address"),
        (None, "is not an address"),
        ("9" * 100_000, "is not an IPv4 or IPv6 address"),
    ],
)
def test_what_is_no_network_is_refused_by_peer(session: Session, value: object, why: str) -> None:
    wanted: dict[str, list[object]] = {"peers[0]": ["192.0.2.0/28"], "peers[7]": ["192.0.2.16/28", value]}
    with pytest.raises(Invalid) as caught:
        check_networks(session, an_instance(session), wanted)
    assert caught.value.field == "peers[7].allowed_ips[1]"
    assert why in str(caught.value)
    assert len(str(caught.value)) < 200


def overlap(text: str, whose: str, other: str, others: str) -> str:
    return rf"^{re.escape(f'{text} ({whose}) overlaps with {other} ({others})')}$"


@pytest.mark.parametrize(
    ("first", "second"),
    [("192.0.2.0/24", "192.0.2.7/32"), ("192.0.2.0/24", "192.0.2.0/24"), ("::/0", "fd00::/8")],
)
def test_networks_of_two_new_peers_must_not_overlap(session: Session, first: str, second: str) -> None:
    wanted = {"peers[0]": [first], "peers[1]": ["198.51.100.0/24", second]}
    with pytest.raises(Conflict, match=overlap(first, "peers[0]", second, "peers[1]")):
        check_networks(session, an_instance(session), wanted)


def test_networks_must_not_overlap_with_those_of_the_instances_peers(session: Session) -> None:
    instance = an_instance(session)
    add_peer(session, instance, "10.8.1.5/32", "192.0.2.0/24", name="office")
    nameless = add_peer(session, instance, "fd00:8:0:1::7/128")
    assert check_networks(session, instance, {"peers[0]": ["10.8.1.4/32", "192.0.3.0/24"]})
    for text, there, owner in (
        ("10.8.1.4/30", "10.8.1.5/32", "peer office"),
        ("192.0.2.128/25", "192.0.2.0/24", "peer office"),
        ("192.0.0.0/16", "192.0.2.0/24", "peer office"),
        ("fd00:8:0:1::7/128", "fd00:8:0:1::7/128", f"peer {nameless.public_key}"),
    ):
        with pytest.raises(Conflict, match=overlap(text, "peers[0]", there, owner)):
            check_networks(session, instance, {"peers[0]": [text]})


def test_what_a_peer_has_itself_is_no_conflict(session: Session) -> None:
    instance = an_instance(session)
    peer = add_peer(session, instance, "192.0.2.0/24")
    assert check_networks(session, instance, {peer.public_key: ["192.0.2.0/25"]})
    # It gets something else, and another what it has.
    assert check_networks(session, instance, {peer.public_key: [], "peers[1]": ["192.0.2.0/25"]})
    with pytest.raises(Conflict):
        check_networks(session, instance, {"peers[1]": ["192.0.2.0/25"]})


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("10.8.1.1/32", "10.8.1.1/32"), ("10.8.1.0/24", "10.8.1.1/32"), ("0.0.0.0/0", "10.8.1.1/32"),
        ("fd00:8:0:1::1/128", "fd00:8:0:1::1/128"), ("::/0", "fd00:8:0:1::1/128"),
    ],
)  # fmt: skip
def test_networks_must_not_hold_the_instances_own_address(session: Session, text: str, own: str) -> None:
    with pytest.raises(Conflict, match=overlap(text, "peers[0]", own, "the instance's own address")):
        check_networks(session, an_instance(session), {"peers[0]": [text]})


@pytest.mark.parametrize(
    ("text", "pool"),
    [
        ("10.8.2.0/24", "10.8.0.0/16"), ("10.8.0.0/32", "10.8.0.0/16"), ("fd00:8:0:2::/64", "fd00:8::/48"),
        ("fd00:8:0:2::/63", "fd00:8::/48"),
    ],
)  # fmt: skip
def test_what_later_customers_get_is_not_for_the_asking(session: Session, text: str, pool: str) -> None:
    with pytest.raises(Conflict, match=overlap(text, "peers[0]", pool, "the pool of node node1")):
        check_networks(session, an_instance(session), {"peers[0]": [text]})


def test_networks_must_not_overlap_with_what_others_on_the_node_have(session: Session) -> None:
    instance = an_instance(session)
    guest = add_instance(session, instance.node, subnet="10.20.0.0/24", subnet6="fd00:20::/64")
    add_peer(session, guest, "10.20.0.2/32", "192.0.2.0/24")
    left = add_teardown(session, instance.node, subnet="10.21.0.0/24")
    moving = add_instance(session, add_node(session, "node2"), subnet="10.22.0.0/24")
    add_peer(session, moving, "198.51.100.0/24")
    assert check_networks(session, instance, {"peers[0]": ["10.22.0.0/24", "198.51.100.0/24"]})
    add_teardown(session, instance.node, **left_of(moving, "reserved"))
    for text, there, owner in (
        ("10.20.0.0/16", "10.20.0.0/24", guest.name),
        ("fd00:20::5/128", "fd00:20::/64", guest.name),
        ("192.0.2.4/32", "192.0.2.0/24", f"a peer of {guest.name}"),
        ("10.21.0.0/24", "10.21.0.0/24", left.instance_name),
        ("10.22.0.0/24", "10.22.0.0/24", moving.name),
        ("198.51.100.0/24", "198.51.100.0/24", f"a peer of {moving.name}"),
    ):
        with pytest.raises(Conflict, match=overlap(text, "peers[0]", there, owner)):
            check_networks(session, instance, {"peers[0]": [text]})


def test_what_is_still_up_of_the_instance_itself_is_no_conflict(session: Session) -> None:
    instance = an_instance(session, "10.20.0.0/24", "fd00:20::/64")
    add_teardown(session, instance.node, **left_of(instance, "transferred"))
    assert check_networks(session, instance, {"peers[0]": ["192.0.2.0/24"]})
    assert networks_held(session, instance.node, instance) == []


def test_what_a_node_holds(session: Session) -> None:
    instance = an_instance(session)
    add_peer(session, instance, "10.8.1.2/32", "fd00:8:0:1::2/128", "192.0.2.0/24", "2001:db8::/48")
    left = add_teardown(session, instance.node)
    add_instance(session, add_node(session, "node2"))
    others = [(left.subnet, left.instance_name), (left.subnet6, left.instance_name)]
    assert sorted(networks_held(session, instance.node)) == sorted(
        [
            *others,
            ("10.8.1.0/24", instance.name),
            ("fd00:8:0:1::/64", instance.name),
            ("192.0.2.0/24", f"a peer of {instance.name}"),
            ("2001:db8::/48", f"a peer of {instance.name}"),
        ]
    )
    assert sorted(networks_held(session, instance.node, instance)) == sorted(others)


def a_move(session: Session) -> tuple[Instance, Node, Instance]:
    """An instance, where it wants to go, and who is there."""
    source = add_node(session, "node1")
    target = add_node(session, "node2", ip_pool_cidr="10.9.0.0/16", ip6_pool_cidr="fd00:9::/48")
    moving = add_instance(session, source, subnet="10.8.1.0/24", subnet6="fd00:8:0:1::/64")
    there = add_instance(session, target, subnet="10.9.1.0/24", subnet6="fd00:9:0:1::/64")
    return moving, target, there


def test_an_instance_moves_where_nobody_has_its_networks(session: Session) -> None:
    moving, target, there = a_move(session)
    add_peer(session, moving, "10.8.1.2/32", "192.0.2.0/25")
    add_peer(session, there, "10.9.1.2/32", "192.0.2.128/25")
    check_move(session, moving, target)
    # What an earlier attempt has left there is its own.
    add_teardown(session, target, **left_of(moving, "reserved"))
    check_move(session, moving, target)


def test_an_instance_moves_to_a_node_out_of_whose_pool_its_subnet_is_too(session: Session) -> None:
    moving, target, _there = a_move(session)
    target.ip_pool_cidr = "10.8.0.0/16"
    add_peer(session, moving, "10.8.1.2/32")
    check_move(session, moving, target)


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        ("192.0.2.0/24", "192.0.2.0/25", ("192.0.2.0/24", "192.0.2.0/25")),
        ("10.9.1.0/28", None, ("10.9.1.0/28", "10.9.0.0/16")),
        ("fd00:9:0:7::/64", None, ("fd00:9:0:7::/64", "fd00:9::/48")),
        (None, "10.8.1.128/25", ("10.8.1.0/24", "10.8.1.128/25")),
        (None, "10.8.0.0/16", ("10.8.1.0/24", "10.8.0.0/16")),
        (None, "fd00:8:0:1::/64", ("fd00:8:0:1::/64", "fd00:8:0:1::/64")),
    ],
)
def test_an_instance_does_not_move_where_somebody_has_its_networks(
    session: Session, mine: str | None, theirs: str | None, both: tuple[str, str]
) -> None:
    moving, target, there = a_move(session)
    if mine:
        add_peer(session, moving, mine)
    if theirs:
        add_peer(session, there, theirs)
    whose = f"a peer of {moving.name}" if mine else moving.name
    other = f"a peer of {there.name}" if theirs else "the pool of node node2"
    with pytest.raises(Conflict, match=overlap(both[0], whose, both[1], other)):
        check_move(session, moving, target)


# ---- rows that are not flushed


@pytest.mark.parametrize(
    ("find", "before", "after"),
    [
        (lambda session, node: free_port(session, node, 51820), 51820, 51821),
        (lambda session, node: free_subnet(session, node, 24), "10.8.0.0/24", "10.8.1.0/24"),
        (lambda session, node: free_subnet6(session, node), "fd00:8::/64", "fd00:8:0:1::/64"),
        (lambda session, node: len(networks_held(session, node)), 2, 4),
    ],
    ids=["port", "subnet", "subnet6", "held"],
)
def test_a_teardown_that_is_not_written_yet_counts(
    session: Session, find: Find, before: object, after: object
) -> None:
    instance = add_instance(session, add_node(session))
    assert find(session, instance.node) == before
    session.add(
        Teardown(
            node_id=instance.node_id,
            interface="wg900001",
            listen_port=51820,
            subnet="10.8.0.0/24",
            subnet6="fd00:8::/64",
            instance_name="user@example.com",
            reason="removed",
        )
    )
    assert find(session, instance.node) == after


@pytest.mark.parametrize(
    "find", [choose_node, lambda session, _: require_room(session, session.info["node"], 1)]
)
def test_a_peer_that_is_not_written_yet_counts(
    session: Session, find: Callable[[Session, int], object]
) -> None:
    session.info["node"] = node = add_node(session, max_peers=1)
    instance = add_instance(session, node)
    find(session, 1)
    session.add(Peer(instance_id=instance.id, public_key=any_key()))
    with pytest.raises(Full):
        find(session, 1)


def test_a_network_that_is_not_written_yet_counts(session: Session) -> None:
    instance = an_instance(session)
    peer = add_peer(session, instance)
    for text in ("10.8.1.2/32", "192.0.2.0/24"):
        session.add(PeerAllowedIp(peer_id=peer.id, instance_id=instance.id, network=text))
    with session.no_autoflush:
        assert free_addresses(session, instance, 1)[0][0] == "10.8.1.2/32"  # they do wait
    assert free_addresses(session, instance, 1)[0][0] == "10.8.1.3/32"
    with pytest.raises(Conflict):
        check_networks(session, instance, {"peers[0]": ["192.0.2.0/24"]})
