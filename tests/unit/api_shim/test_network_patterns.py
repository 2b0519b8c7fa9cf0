"""Patterns of networks match no network with host bits set, and the usual ones."""

from __future__ import annotations

import ipaddress
import random
import re

import pytest

from api_shim.routes.network_patterns import IP4, IP6, NETWORK, POOL, POOL6


def test_every_prefix_of_a_pool_is_matched_without_host_bits_only() -> None:
    numbers = random.Random(7)
    for prefix in range(8, 31):
        for _ in range(200):
            address = numbers.randrange(2**32) | 1
            network = ipaddress.ip_network((address, prefix), strict=False)
            assert re.fullmatch(POOL, f"{ipaddress.ip_address(address)}/{prefix}") is None
            octet = int(str(network).partition(".")[0])
            usable = 0 < octet < 224 and octet not in (127, 169)
            assert bool(re.fullmatch(POOL, str(network))) == usable, network
            assert re.fullmatch(NETWORK, str(network))


@pytest.mark.parametrize(
    "text", ["10.0.0.0/7", "10.0.0.0/31", "10.0.0.0", "10.0.0/8", "256.0.0.0/8", "010.0.0.0/8"]
)
def test_what_is_no_pool(text: str) -> None:
    assert re.fullmatch(POOL, text) is None


def test_ipv6() -> None:
    for text in ("fd00:8::/48", "fd12:3456:789a::/48", "2001:db8:1::/64"):
        assert re.fullmatch(POOL6, text)
        assert ipaddress.ip_network(text)
    for text in ("::/0", "2001:db8::1/128", "fd00::/64"):
        assert re.fullmatch(NETWORK, text)
    for text in ("::1", "1:2:3:4:5:6:7:8:9", "192.0.2.1"):
        assert re.fullmatch(IP6, text) is None
    assert re.fullmatch(IP6, "2001:db8::1")
    assert re.fullmatch(IP4, "192.0.2.1")
