from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    DEFAULTS,
    NODE_CHECKS,
    Settings,
    check_dns,
    check_endpoint_allowed_ip,
    check_keepalive,
    check_max_peers,
    check_mtu,
    check_pool,
    check_pool6,
    check_port,
    check_weight,
    effective,
)

Check = Callable[[object, str], object]

# ---- which value holds

OVERRIDES = {
    "override_listen_port": 51900, "override_dns": "192.0.2.53", "override_mtu": 1380, "override_keepalive": 30,
    "override_endpoint_allowed_ip": "10.0.0.0/8",
}  # fmt: skip


def test_what_nobody_sets_is_the_default() -> None:
    assert effective(Instance(), Node()) == effective(None, Node()) == DEFAULTS
    assert Settings(51820, None, None, 25, "0.0.0.0/0, ::/0") == DEFAULTS


def test_the_node_is_asked_before_the_default() -> None:
    wanted = Settings(51900, "192.0.2.53", 1380, 30, "10.0.0.0/8", 30)
    assert effective(Instance(), Node(**OVERRIDES)) == effective(None, Node(**OVERRIDES)) == wanted


def test_the_instance_is_asked_before_the_node() -> None:
    instance = Instance(dns="192.0.2.54", mtu=1400, keepalive=10, endpoint_allowed_ip="192.0.2.0/24")
    wanted = Settings(51900, "192.0.2.54", 1400, 10, "192.0.2.0/24", 10)
    assert effective(instance, Node(**OVERRIDES)) == wanted


def test_each_setting_is_looked_for_on_its_own() -> None:
    assert effective(Instance(mtu=1400), Node(override_dns="192.0.2.53")) == Settings(
        51820, "192.0.2.53", 1400, 25, "0.0.0.0/0, ::/0"
    )


def test_zero_is_a_value() -> None:
    assert effective(Instance(keepalive=0), Node(override_keepalive=30)).keepalive == 0
    assert effective(Instance(), Node(override_keepalive=0)).keepalive == 0
    assert effective(Instance(keepalive=0), Node(override_keepalive=30)).peer_keepalive == 0


def test_the_node_sends_keepalives_only_when_somebody_says_so() -> None:
    assert effective(Instance(), Node()).peer_keepalive == 0
    assert effective(Instance(), Node(override_keepalive=30)).peer_keepalive == 30
    assert effective(Instance(keepalive=10), Node(override_keepalive=30)).peer_keepalive == 10


def test_the_instances_own_port_is_not_where_ports_begin() -> None:
    assert effective(Instance(listen_port=40000), Node()).listen_port_base == 51820


def test_the_defaults_pass_the_checks() -> None:
    for field in ("dns", "mtu", "keepalive", "endpoint_allowed_ip"):
        assert NODE_CHECKS[f"override_{field}"](getattr(DEFAULTS, field), field) == getattr(DEFAULTS, field)


# ---- which values may be

NO_NUMBERS: list[object] = [
    "-1", "65536000000", " 1", "1 ", "1e3", "0x10", "\u0661", "x", "{{ 1 }}", "9" * 5000,
    1500.5, True, False, [1500], {},
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "low", "high"),
    [
        (check_port, 1, 65535),
        (check_mtu, 1280, 9000),
        (check_keepalive, 0, 65535),
        (check_weight, 0, 10000),
        (check_max_peers, 0, 2**31 - 1),
    ],
)
def test_numbers_are_taken_from_the_lowest_to_the_highest(check: Check, low: int, high: int) -> None:
    assert [check(value, "f") for value in (low, high, str(high))] == [low, high, high]
    for value in (low - 1, high + 1, -1, 10**30, float(high), *NO_NUMBERS):
        with pytest.raises(Invalid, match=rf"^f: .* is not a number from {low} to {high}$") as caught:
            check(value, "f")
        assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "check", [check_port, check_mtu, check_keepalive, check_max_peers, check_dns, check_endpoint_allowed_ip]
)
def test_what_may_be_open_is_open(check: Check) -> None:
    assert check(None, "f") is None
    assert check("", "f") is None


@pytest.mark.parametrize("value", [None, ""])
def test_what_may_not_be_open_is_needed(value: object) -> None:
    with pytest.raises(Invalid, match=r"^f: is needed$"):
        check_weight(value, "f")


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.53", "fd00::53", "192.0.2.53,fd00::53", "192.0.2.53, fd00::53", "192.0.2.53 ,example.com",
        "dns.example.com", "localdomain", "1.1.1.example", ",".join(["192.0.2.53"] * 23),
    ],
)  # fmt: skip
def test_dns_is_taken_as_it_is_written(text: str) -> None:
    assert check_dns(text, "f") == check_dns(f" {text} ", "f") == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",", "nothing between two commas"),
        ("192.0.2.53,", "nothing between two commas"),
        ("192.0.2.53,,192.0.2.54", "nothing between two commas"),
        ("192.0.2.256", "neither an IP address nor a host name"),
        ("192.0.2.53/32", "neither an IP address nor a host name"),
        ("192.0.2.53:53", "neither an IP address nor a host name"),
        ("192.0.2.53 192.0.2.54", "neither an IP address nor a host name"),
        ("fe80::1%eth0", "neither an IP address nor a host name"),
        ("fd00::/64", "neither an IP address nor a host name"),
        ("-a", "neither an IP address nor a host name"),
        ("$(id)", "neither an IP address nor a host name"),
        ("{{ lookup('pipe', 'id') }}", "neither an IP address nor a host name"),
        ("192.0.2.53\nPostUp = id", "characters that are in no address"),
        ("\t192.0.2.53", "characters that are in no address"),
        ("192.0.2.53\0", "characters that are in no address"),
        ("\u0661.example", "characters that are in no address"),
        ("a" * 256, "longer than 255"),
        (53, "is not a text"),
        (["192.0.2.53"], "is not a text"),
    ],
)
def test_what_is_no_dns_is_refused(text: object, why: str) -> None:
    with pytest.raises(Invalid, match=rf"^f: .*{re.escape(why)}"):
        check_dns(text, "f")


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0/0, ::/0", "0.0.0.0/0,::/0", "10.0.0.0/8", "192.0.2.1", "fd00::/8 , 10.0.0.0/8", "FD00::/8"],
)
def test_endpoint_allowed_ip_is_taken_as_it_is_written(text: str) -> None:
    assert check_endpoint_allowed_ip(text, "f") == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.1/8", "has host bits set; the network is 10.0.0.0/8"),
        ("0.0.0.0/0, fd00::1/64", "has host bits set; the network is fd00::/64"),
        ("0.0.0.0/33", "prefix length"),
        ("example.com", "is not an IPv4 or IPv6 address"),
        ("0.0.0.0/0;::/0", "prefix length"),
        ("0.0.0.0/0,", "nothing between two commas"),
        ("0.0.0.0/0,\n::/0", "characters that are in no address"),
        ("0.0.0.0/0\nEndpoint = 192.0.2.1:1", "characters that are in no address"),
        ("10.0.0.0/8," * 400, "longer than 4000"),
        (0, "is not a text"),
    ],
)
def test_what_is_no_list_of_networks_is_refused(text: object, why: str) -> None:
    with pytest.raises(Invalid, match=rf"^f: .*{re.escape(why)}"):
        check_endpoint_allowed_ip(text, "f")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.1.0/24", "10.0.1.0/24"), (" 10.0.0.0/08 ", "10.0.0.0/8"), ("172.16.0.0/12", "172.16.0.0/12"),
        ("100.64.0.0/10", "100.64.0.0/10"), ("192.0.2.4/30", "192.0.2.4/30"),
    ],
)  # fmt: skip
def test_an_ipv4_pool_is_taken_in_normal_form(text: str, normal: str) -> None:
    assert check_pool(text, "f") == normal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "is not an address"),
        (10, "is not an address"),
        ("", "is not an IPv4 or IPv6 address"),
        ("10.0.0.0", "has no room for an instance with a peer: /30 is the smallest"),
        ("10.0.0.0/31", "has no room for an instance with a peer: /30 is the smallest"),
        ("10.0.0.1/24", "has host bits set"),
        ("10.0.0.0/24,10.0.1.0/24", "prefix length"),
        ("fd00::/48", "is not an IPv4 network"),
        ("0.0.0.0/0", "addresses that hosts cannot have"),
        ("127.0.0.0/24", "addresses that hosts cannot have"),
        ("96.0.0.0/3", "addresses that hosts cannot have"),
        ("169.254.1.0/24", "addresses that hosts cannot have"),
        ("239.0.0.0/8", "addresses that hosts cannot have"),
        ("255.255.255.0/24", "addresses that hosts cannot have"),
    ],
)
def test_what_is_no_ipv4_pool_is_refused(text: object, why: str) -> None:
    with pytest.raises(Invalid, match=rf"^f: .*{re.escape(why)}"):
        check_pool(text, "f")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("fd00:1::/48", "fd00:1::/48"), ("FD00:0:0:1::/64", "fd00:0:0:1::/64"), ("2001:db8::/32", "2001:db8::/32"),
    ],
)  # fmt: skip
def test_an_ipv6_pool_is_taken_in_normal_form(text: str, normal: str) -> None:
    assert check_pool6(text, "f") == normal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "is not an address"),
        ("10.0.0.0/8", "is not an IPv6 network"),
        ("fd00::/65", "has no room for an instance: /64 is the smallest"),
        ("fd00::1/48", "has host bits set"),
        ("::/0", "is neither unique local"),
        ("fe80::/64", "is neither unique local"),
        ("ff00::/16", "is neither unique local"),
        ("::ffff:0:0/64", "has host bits set"),
    ],
)
def test_what_is_no_ipv6_pool_is_refused(text: object, why: str) -> None:
    with pytest.raises(Invalid, match=rf"^f: .*{re.escape(why)}"):
        check_pool6(text, "f")


# ---- all checks


def test_every_setting_of_the_tables_has_its_check() -> None:
    columns = {column.name for column in Node.__table__.columns}
    assert {name for name in columns if name.startswith("override_")} < set(NODE_CHECKS) < columns


@pytest.mark.parametrize("field", NODE_CHECKS)
@given(value=st.text(max_size=80) | st.text("0123456789abcdef.:/,% -\n", max_size=40))
def test_any_text_is_taken_or_refused_and_what_is_taken_is_taken_again(field: str, value: str) -> None:
    check = NODE_CHECKS[field]
    refused, taken = None, None
    try:
        taken = check(value, field)
    except Invalid as error:
        refused = error
    if refused is not None:
        assert refused.field == field
        assert str(refused).isprintable()
        assert len(str(refused)) < 250
    if taken is not None:
        assert check(taken, field) == taken
    if isinstance(taken, str):
        assert set(taken) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:/, -")
