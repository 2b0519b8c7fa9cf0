"""Where a new instance goes: node, place and port."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    Place,
    find_place,
    free_addresses,
    free_port,
    free_subnet,
    free_subnet6,
    nodes_with_room,
    require_room,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    Invalid,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Peer,
    PeerAllowedIp,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.networks import (
    check_networks,
    networks_held,
)
from tests.unit.plugins.plugin_utils.registry import rolled_back
from tests.unit.plugins.plugin_utils.registry.rolled_back import statements
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_instance,
    add_node,
    add_peer,
    add_peers,
    add_teardown,
    an_instance,
    any_key,
    left_of,
)

registry = rolled_back.registry
session = rolled_back.session

Find = Callable[[Session, Node], object]


# ---- nodes


def test_the_node_with_the_fewest_peers_gets_the_next(session: Session) -> None:
    for name, peers in (("node1", [5, 5]), ("node2", [9]), ("node3", [3, 4, 4])):
        node = add_node(session, name)
        for count in peers:
            add_instance(session, node, count)
    assert nodes_with_room(session, 1)[0].name == "node2"


def test_a_node_gets_its_share_by_weight(session: Session) -> None:
    light, heavy = add_node(session, "light", weight=1), add_node(session, "heavy", weight=10)
    add_instance(session, light, 2)
    add_instance(session, heavy, 19)
    assert nodes_with_room(session, 1)[0] is heavy
    add_peers(session, add_instance(session, heavy), 1)
    assert nodes_with_room(session, 1)[0] is heavy  # as many for its weight, and first by name
    add_instance(session, heavy)
    assert nodes_with_room(session, 1)[0] is light


def test_an_empty_instance_weighs_as_one_peer(session: Session) -> None:
    one, two = add_node(session, "node1"), add_node(session, "node2")
    add_instance(session, one)
    assert nodes_with_room(session, 0)[0] is two
    add_instance(session, two, 1)
    assert nodes_with_room(session, 0)[0] is one
    add_instance(session, one)
    assert nodes_with_room(session, 0)[0] is two


def test_of_equals_the_first_by_name_is_chosen(session: Session) -> None:
    for name in ("node-b", "node-B", "node-a", "node-c"):
        add_node(session, name)
    assert nodes_with_room(session, 1)[0].name == "node-B"  # by code point, on both databases


def test_disabled_nodes_and_those_without_weight_are_passed_over(session: Session) -> None:
    add_node(session, "node1", enabled=False)
    add_node(session, "node2", weight=0)
    busy = add_node(session, "node3")
    add_instance(session, busy, 50)
    assert nodes_with_room(session, 1)[0] is busy


def test_disconnected_instances_count(session: Session) -> None:
    one, two = add_node(session, "node1", max_peers=10), add_node(session, "node2")
    add_instance(session, one, 10, state="disconnected")
    add_instance(session, two, 20)
    assert nodes_with_room(session, 1)[0] is two


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
        assert nodes_with_room(session, new)[0] is node
        require_room(session, node, new)
    else:
        with pytest.raises(Full):
            nodes_with_room(session, new)[0]
        with pytest.raises(Full):
            require_room(session, node, new)


def test_a_customer_who_does_not_fit_goes_where_there_is_room(session: Session) -> None:
    small, large = add_node(session, "node1", max_peers=10), add_node(session, "node2")
    add_instance(session, large, 5)
    assert nodes_with_room(session, 10)[0] is small
    assert nodes_with_room(session, 11)[0] is large


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
        nodes_with_room(session, 1)[0]
    add_node(session, "node1", enabled=False, weight=0)
    add_node(session, "node2", enabled=False)
    add_node(session, "node3", weight=0)
    with pytest.raises(
        Full, match=r"^no node takes new instances: of 3 nodes, 2 disabled and 1 enabled with weight 0$"
    ):
        nodes_with_room(session, 1)[0]
    add_instance(session, add_node(session, "node4", max_peers=10), 9)
    with pytest.raises(
        Full,
        match=r"^no node has room for 3 new peers: of 1 node that take new instances, node4 comes closest, "
        r"with 9 of at most 10: 2 too many$",
    ):
        nodes_with_room(session, 3)[0]
    add_node(session, "node5", max_peers=0)
    add_instance(session, add_node(session, "node6", max_peers=100), 98)
    with pytest.raises(
        Full,
        match=r"room for 3 new peers: of 3 nodes .* node6 comes closest, with 98 of at most 100: 1 too many$",
    ):
        nodes_with_room(session, 3)[0]


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
        assert nodes_with_room(session, 1)[0].name == "node00"
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
    "find", [nodes_with_room, lambda session, _: require_room(session, session.info["node"], 1)]
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
