from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import default_routes, wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Route
from tests.unit.plugins.module_utils.generated import by_key, near_networks, peer

near_addresses = st.sampled_from(
    ["10.0.0.1/24", "10.0.0.129/25", "10.0.0.9/32", "fd00::1/124", "fd00::1/128"]
)


def naive(table: str, addresses: list[str], networks: list[str]) -> set[Route]:
    if table == "off":
        return set()

    def within(inner: str, outer: str) -> bool:
        one, other = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
        return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]

    own = [str(ipaddress.ip_interface(address).network) for address in addresses] if table == "auto" else []
    left = {text for text in networks if not any(within(text, subnet) for subnet in own)}
    return {
        Route(text, "main" if table == "auto" else table)
        for text in left
        if not any(text != other and within(text, other) for other in left)
    }


@given(
    st.sampled_from(["auto", "off", "100"]),
    st.lists(near_addresses, max_size=3),
    st.lists(st.lists(near_networks, max_size=4), max_size=4),
)
def test_routes_are_those_of_the_naive_model(table: str, addresses: list[str], nets: list[list[str]]) -> None:
    peers = [peer(number, *mine) for number, mine in enumerate(nets)]
    assert wanted_routes(table, addresses, peers) == naive(
        table, addresses, [text for mine in nets for text in mine]
    )


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("off", []),
        ("auto", [Route("10.1.0.0/16", "main"), Route("fd01::/64", "main")]),
        (
            "51820",
            [
                Route("10.0.0.2/32", "51820"),
                Route("10.1.0.0/16", "51820"),
                Route("fd00::2/128", "51820"),
                Route("fd01::/64", "51820"),
            ],
        ),
    ],
)
def test_the_own_subnets_need_routes_only_in_another_table(table: str, expected: list[Route]) -> None:
    peers = [peer(1, "10.0.0.2/32", "fd00::2/128"), peer(2, "10.1.0.0/16", "10.1.9.9/32", "fd01::/64")]
    assert wanted_routes(table, ["10.0.0.1/24", "fd00::1/64"], peers) == frozenset(expected)


def test_default_routes() -> None:
    some = by_key(peer(1, "10.0.0.0/8"), peer(2, "0.0.0.0/0", "fd00::/64", "::/0"))
    assert default_routes(some) == ["0.0.0.0/0", "::/0"]
    assert default_routes(by_key(peer(1, "10.0.0.10/32", "128.0.0.0/1"))) == []
