from __future__ import annotations

import ipaddress
import itertools
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    check_interface_address,
    covered,
    first_overlap,
    network,
    outermost,
    outside,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from tests.unit.plugins.module_utils.generated import near_networks, networks, normal_networks

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

any_address = st.ip_addresses(v=4) | st.ip_addresses(v=6)
near_lists = st.lists(near_networks, max_size=12)


def as_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def within(inner: str, outer: str) -> bool:
    one, other = as_network(inner), as_network(outer)
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.0.2", "10.0.0.2/32"),
        (" 10.0.0.2/32 ", "10.0.0.2/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("FD00:0:0::2", "fd00::2/128"),
        ("fd00:0:0:0:0:0:0:0/64", "fd00::/64"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1/128"),
        ("::ffff:c000:201", "::ffff:192.0.2.1/128"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1/128"),
        ("10.0.0.0/08", "10.0.0.0/8"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert check_allowed_ip(text, "f") == check_interface_address(text, "f") == normal


BAD = [
    None, 5, True, ["10.0.0.1"], b"10.0.0.1", "", "/", "/32", "10.0.0", "10.0.0.256", "10.0.0.1.1", "010.0.0.1",
    "0x0a.0.0.1", "1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/+8", "10.0.0.1/3 2", "10.0.0.1/255.0.0.0",
    "10.0.0.1/32/32", "fd00::1/129", "fd00::1%eth0", "[fd00::1]", "fd00:::1", "localhost", "10.0.0.1\0", "10.0.0.1,",
    "10.0.0.1; reboot", "10.0.0.1/\u0661", "\u0661\u0660.0.0.1", "\udc80", "{{ lookup('pipe', 'id') }}",
    "1" * 1_000_000, "10.0.0.1/" + "1" * 1_000_000, "fd00::" + ":" * 1_000_000,
]  # fmt: skip


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("check", [check_allowed_ip, check_interface_address])
def test_what_is_no_address_is_refused(check: Callable[[object, str], str], value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(value, "peers[0].allowed_ips[1]")
    assert caught.value.field == "peers[0].allowed_ips[1]"
    assert str(caught.value).startswith("peers[0].allowed_ips[1]: ")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "net"),
    [("10.0.0.1/24", "10.0.0.0/24"), ("fd00::1/64", "fd00::/64"), ("128.0.0.0/0", "0.0.0.0/0")],
)
def test_host_bits_are_refused_and_the_network_is_named(text: str, net: str) -> None:
    with pytest.raises(InvalidInput, match=f"'{text}' has host bits set; the network is {net}$"):
        check_allowed_ip(text, "f")
    assert check_interface_address(text, "f") == text


@given(any_address, st.integers(0, 128))
def test_host_bits_are_what_ipaddress_says(address: Address, length: int) -> None:
    text = f"{address}/{min(length, address.max_prefixlen)}"
    try:
        ipaddress.ip_network(text)
    except ValueError:
        with pytest.raises(InvalidInput, match="has host bits set"):
            check_allowed_ip(text, "f")
    else:
        assert as_network(check_allowed_ip(text, "f")) == as_network(text)


@given(any_address, st.integers(0, 128), st.booleans(), st.booleans())
def test_every_spelling_has_the_one_form_of_inet_ntop(
    address: Address, length: int, long: bool, upper: bool
) -> None:
    length = min(length, address.max_prefixlen)
    spelt = address.exploded if long else str(address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    normal = f"{socket.inet_ntop(family, address.packed)}/{length}"
    assert check_interface_address(f"{spelt.upper() if upper else spelt}/{length}", "f") == normal
    assert check_interface_address(normal, "f") == normal


@given(networks)
def test_network_is_what_ipaddress_says(text: str) -> None:
    net = as_network(text)
    assert network(text) == (net.max_prefixlen, int(net.network_address), net.prefixlen)


@given(near_networks, near_networks)
def test_covered_is_subnet_of(inner: str, outer: str) -> None:
    assert covered(network(inner), network(outer)) is within(inner, outer)


@given(near_lists, near_lists)
def test_outside_is_what_nothing_covers(texts: list[str], subnets: list[str]) -> None:
    known = [network(subnet) for subnet in subnets]
    assert outside(texts, known) == [text for text in texts if not any(within(text, one) for one in subnets)]


@given(st.lists(st.tuples(near_networks | normal_networks, st.sampled_from("ABC")), max_size=12))
def test_an_overlap_is_found_just_when_there_is_one(owned: list[tuple[str, str]]) -> None:
    overlapping = {
        frozenset({one, other})
        for one, other in itertools.combinations(owned, 2)
        if one[1] != other[1] and (within(one[0], other[0]) or within(other[0], one[0]))
    }
    found = first_overlap(owned)
    if found is None:
        assert overlapping == set()
    else:
        assert frozenset(found) in overlapping


def test_networks_of_one_owner_may_nest() -> None:
    assert first_overlap([("10.0.0.0/8", "A"), ("10.1.0.0/16", "A"), ("10.1.1.1/32", "A")]) is None


def test_an_overlap_behind_networks_of_the_same_owner_is_found() -> None:
    owned = [("10.0.0.0/8", "A"), ("10.1.0.0/16", "B"), ("10.2.0.0/16", "A"), ("10.2.1.1/32", "A")]
    assert first_overlap(owned) == (("10.0.0.0/8", "A"), ("10.1.0.0/16", "B"))


@given(near_lists)
def test_outermost_keeps_what_nothing_else_covers(texts: list[str]) -> None:
    expected = {text for text in texts if not any(text != other and within(text, other) for other in texts)}
    kept = outermost(texts)
    assert set(kept) == expected
    assert len(kept) == len(expected)
    assert kept == sorted(kept, key=lambda text: (as_network(text).version, as_network(text).network_address))
