"""Networks that peers ask for, and those that move with an instance: none overlaps with anybody else's."""

from __future__ import annotations

import re

import pytest
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Invalid,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.networks import (
    check_move,
    check_networks,
    networks_held,
)
from tests.unit.plugins.plugin_utils.registry import rolled_back
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
