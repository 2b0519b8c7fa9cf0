from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.conflicts import (
    held_networks,
    refuse_conflicts,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Link, Route
from tests.unit.plugins.module_utils.generated import by_key, peer, running

LINKS = {
    "lo": Link(True, 65536, frozenset({"127.0.0.1/8", "::1/128"})),
    "eth0": Link(True, 1500, frozenset({"192.0.2.11/24", "fe80::1/64"})),
    "wg7": Link(True, 1420, frozenset({"10.7.0.1/24", "fd00:7::1/64", "fe80::2/64"})),
}
ROUTES = {
    "eth0": frozenset({Route("0.0.0.0/0", "main"), Route("172.16.0.0/12", "main")}),
    "wg7": frozenset({Route("192.168.50.0/24", "main"), Route("192.168.60.0/24", "7")}),
}


def check(wanted: InterfaceState, before: InterfaceState | None = None, name: str = "wg8") -> None:
    held = held_networks(LINKS, ROUTES, {"wg7", "wg8"}, name)
    refuse_conflicts(name, before or InterfaceState(), wanted, held)


def with_network(text: str, table: str = "auto") -> InterfaceState:
    return running(by_key(peer(1, text)), table=table, addresses=["10.8.0.1/24"])


@pytest.mark.parametrize(
    ("text", "theirs", "owner"),
    [
        ("192.168.50.0/24", "192.168.50.0/24", "wg7"),
        ("192.168.50.128/25", "192.168.50.0/24", "wg7"),
        ("192.168.0.0/16", "192.168.50.0/24", "wg7"),
        ("10.7.0.99/32", "10.7.0.1/24", "wg7"),
        ("fd00:7::/48", "fd00:7::1/64", "wg7"),
        ("192.0.2.0/24", "192.0.2.11/24", "eth0"),
        ("192.0.2.1/32", "192.0.2.11/24", "eth0"),
    ],
)
def test_a_network_that_someone_else_holds_is_refused(text: str, theirs: str, owner: str) -> None:
    with pytest.raises(Refused) as caught:
        check(with_network(text))
    assert str(caught.value).startswith(
        f"{text} of wg8 overlaps with {theirs}, which is {owner}'s on this node"
    )


@pytest.mark.parametrize("address", ["10.7.0.1/24", "10.7.0.200/32", "192.168.50.1/30", "192.0.2.200/25"])
def test_so_is_an_address(address: str) -> None:
    with pytest.raises(Refused, match=f"of wg8 overlaps with .*{'eth0' if '192.0.2' in address else 'wg7'}"):
        check(running(addresses=[address]))


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("10.9.0.0/24", "auto"),
        ("172.16.5.0/24", "auto"),  # narrower than a route that is no customer's: how routing is meant to be
        ("192.168.50.0/24", "8"),
        ("192.168.60.0/24", "auto"),
        ("192.168.50.0/24", "off"),
        ("127.0.0.0/8", "auto"),
    ],
)
def test_what_nobody_holds_in_that_table_is_free(text: str, table: str) -> None:
    check(with_network(text, table))


def test_a_table_with_a_number_has_its_holders_too() -> None:
    with pytest.raises(Refused, match=r"192\.168\.60\.0/24 of wg8"):
        check(with_network("192.168.60.0/24", "7"))


def test_what_an_interface_has_already_is_not_asked_again() -> None:
    there = with_network("192.168.50.0/24")
    check(there, before=there)


def test_its_own_networks_are_no_conflict() -> None:
    check(running(by_key(peer(1, "192.168.50.0/24")), table="auto", addresses=["10.7.0.1/24"]), name="wg7")


def test_link_local_addresses_are_everyones() -> None:
    check(running(addresses=["fe80::7/64"]))


def test_an_interface_that_goes_asks_for_nothing() -> None:
    check(InterfaceState(), before=with_network("192.168.50.0/24"))


def test_networks_within_one_another_are_nobodys_business_where_they_have_one_owner() -> None:
    check(running(by_key(peer(1, "10.9.0.0/16"), peer(2, "10.9.1.0/24")), table="auto"))
    theirs = {"wg7": frozenset({Route("10.9.0.0/16", "main"), Route("10.9.1.0/24", "main")})}
    held = held_networks(LINKS, theirs, {"wg7", "wg8"}, "wg8")
    refuse_conflicts("wg8", InterfaceState(), with_network("10.10.0.0/16"), held)
    with pytest.raises(Refused, match=r"^10\.9\.1\.7/32 of wg8 overlaps with 10\.9\.0\.0/16, which is wg7's"):
        refuse_conflicts("wg8", InterfaceState(), with_network("10.9.1.7/32"), held)
