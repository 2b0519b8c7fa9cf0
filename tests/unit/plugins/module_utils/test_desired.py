"""Every error names its field, is short, and repeats no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    HOOKS,
    Desired,
    boolean,
    check_allowed_ips,
    check_endpoint,
    check_instance,
    check_keepalive,
    check_name,
    check_peer,
    check_peers,
    check_table,
    integer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Hooks, Peer
from tests.unit.plugins.module_utils.generated import key, keys, preshared_key, private_key

LONG = "x" * 1_000_000


def refusal(fields: Any, field: str = "instances[2]") -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check_instance(fields, field)
    message = str(caught.value)
    assert len(message) < 300
    assert "\n" not in message
    assert message == f"{caught.value.field}: {caught.value.problem}"
    return caught.value


# ---- names


@pytest.mark.parametrize("name", ["wg0", "a", "wg4294967295", "a_b=c+d.e-f", "W" * 15, "0"])
def test_good_names(name: str) -> None:
    assert check_name(name, "f") == name


@pytest.mark.parametrize(
    "name",
    [
        None, 0, 7, True, "", "w" * 16, "wg 0", " wg0", "wg0\n", "wg0\0", "wg/0", "../wg0", "..", ".", ".wg", "-wg",
        "wg0;reboot", "$(id)", "`id`", "wg0'", "w\u0261", "wg%i", "wg:0", "all", "lo", "{{ x }}", LONG, ["wg0"],
    ],
    ids=lambda name: repr(name)[:20],
)  # fmt: skip
def test_bad_names(name: object) -> None:
    error = refusal({"name": name})
    assert error.field == "instances[2].name"
    assert "is no interface name: 1 to 15 characters" in error.problem


# ---- instances, field by field

FIELDS = [
    ("state", "up", "is not one of present, disconnected, absent"),
    ("state", 5, "is not one of"),
    ("state", ["present"], "is not one of"),
    ("state", LONG, "is not one of"),
    ("private_key", "secret-but-wrong", "is not a WireGuard private key"),
    ("private_key", "A" * 43 + "=", "is the all-zero key"),
    ("public_key", "no key", "is not a WireGuard key"),
    ("public_key", "A" * 43 + "=", "is the all-zero key"),
    ("public_key", key(1)[:-2] + "B=", "is not a WireGuard key"),
    ("public_key", "", "is not a WireGuard key"),
    ("public_key", 5, "is not a WireGuard key"),
    ("public_key", [key(1)], "is not a WireGuard key"),
    ("listen_port", 0, "'0' is not a number from 1 to 65535"),
    ("listen_port", 65536, "'65536' is not a number from 1 to 65535"),
    ("listen_port", -1, "is not a number"),
    ("listen_port", "", "is not a number"),
    ("listen_port", "http", "'http' is not a number from 1 to 65535"),
    ("listen_port", "0x10", "is not a number"),
    ("listen_port", "51820 ", "is not a number"),
    ("listen_port", "\u0665", "is not a number"),
    ("listen_port", 51820.0, "is not a number"),
    ("listen_port", True, "is not a number"),
    ("listen_port", [51820], "is not a number"),
    ("listen_port", "9" * 1_000_000, "is not a number"),
    ("mtu", 575, "is not a number from 576 to 65535"),
    ("mtu", 65536, "is not a number from 576 to 65535"),
    ("fwmark", -1, "is not a number from 0 to 4294967295"),
    ("fwmark", 2**32, "is not a number from 0 to 4294967295"),
    ("table", "main", "is not a number from 1 to 4294967295"),
    ("table", 0, "is not a number from 1"),
    ("table", 2**32, "is not a number from 1"),
    ("table", "auto; reboot", "is not a number"),
    ("table", True, "is not a number"),
    ("peers", "none", "is not a list"),
    ("peers", {}, "is not a list"),
    ("addresses", "10.0.0.1/24", "is not a list"),
    ("addresses", ["10.0.0.1/24", "10.0.0.1/24"], "an address is there twice"),
    ("addresses", ["fd00::1/64", "FD00:0::1/64"], "an address is there twice"),
    ("purge_peers", "maybe", "'maybe' is neither true nor false"),
    ("purge_peers", LONG, "is neither true nor false"),
    ("purge_peers", 2, "is neither true nor false"),
    ("enabled", "sometimes", "is neither true nor false"),
    ("max_removals", -1, "is not a number from 0"),
    ("max_removals", "all", "is not a number from 0"),
    ("config_dir", "etc/wireguard", "is not an absolute path"),
    ("config_dir", 5, "is not an absolute path"),
    ("config_dir", "/etc/\0", "is not an absolute path"),
    *((hook, 5, "is not a list") for hook in HOOKS),
]


@pytest.mark.parametrize(("name", "value", "problem"), FIELDS, ids=lambda value: repr(value)[:25])
def test_each_field_is_checked_and_named(name: str, value: object, problem: str) -> None:
    error = refusal({"name": "wg0", name: value})
    assert error.field == f"instances[2].{name}"
    assert problem in error.problem
    with pytest.raises(InvalidInput) as caught:
        check_instance({"name": "wg0", name: value}, "")
    assert caught.value.field == name


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("line", ["", "  ", "a\nb", "a\rb", "a\0b", "a # comment", "a\x1bb", 5, None, ["a"]])
def test_a_hook_is_one_line(hook: str, line: object) -> None:
    error = refusal({"name": "wg0", hook: ["true", line]})
    assert error.field == f"instances[2].{hook}[1]"
    assert error.problem == "is not one line of text without control characters and without #"


def test_an_address_is_named_by_its_place() -> None:
    assert (
        refusal({"name": "wg0", "addresses": ["10.0.0.1/24", "10.0.0/24"]}).field
        == "instances[2].addresses[1]"
    )


@pytest.mark.parametrize("fields", [None, 5, "wg0", ["wg0"], [("name", "wg0")]])
def test_an_instance_is_a_mapping(fields: object) -> None:
    assert (refusal(fields).field, refusal(fields).problem) == ("instances[2]", "is not a mapping")


@pytest.mark.parametrize("name", ["privatekey", "Name", "port", 5, "no_such_field " * 100000])
def test_a_mistyped_field_is_named(name: object) -> None:
    error = refusal({"name": "wg0", name: 1})
    assert error.field == "instances[2]"
    assert str(name)[:40] in error.problem
    assert "private_key" in error.problem  # which are known is said, too


def test_a_mistyped_field_does_not_show_its_value() -> None:
    assert private_key(1) not in str(refusal({"name": "wg0", "privatekey": private_key(1)}))


# ---- peers

PEER_FIELDS = [
    ("public_key", None, "is not a WireGuard key"),
    ("public_key", "short", "is not a WireGuard key"),
    ("public_key", "A" * 43 + "=", "is the all-zero key"),
    ("preshared_key", "secret-but-wrong", "is not a WireGuard preshared key"),
    ("preshared_key", 5, "is not a WireGuard preshared key"),
    ("allowed_ips", 5, "is not a list"),
    ("allowed_ips", {"10.0.0.1": 1}, "is not a list"),
    ("persistent_keepalive", -1, "is not a number from 0 to 65535"),
    ("persistent_keepalive", 65536, "is not a number from 0 to 65535"),
    ("persistent_keepalive", "on", "is not a number from 0 to 65535"),
    ("persistent_keepalive", True, "is not a number from 0 to 65535"),
    ("endpoint", "192.0.2.1", "is not host:port"),
    ("endpoint", "192.0.2.1:", "is not a number from 1 to 65535"),
    ("endpoint", "192.0.2.1:0", "is not a number from 1 to 65535"),
    ("endpoint", "192.0.2.1:65536", "is not a number"),
    ("endpoint", ":51820", "is not host:port"),
    ("endpoint", "fd00::1:51820", "is not host:port"),
    ("endpoint", "[192.0.2.1]:51820", "is not host:port"),
    ("endpoint", "[fd00::1/64]:51820", "is not host:port"),
    ("endpoint", "[]:51820", "is not"),
    ("endpoint", "-x:51820", "is not host:port"),
    ("endpoint", "a b:51820", "is not host:port"),
    ("endpoint", "a\nPostUp=b:51820", "is not host:port"),
    ("endpoint", "$(id):51820", "is not host:port"),
    ("endpoint", 51820, "is not host:port"),
    ("endpoint", LONG + ":1", "is not host:port"),
    ("endpoint", "a:" + LONG, "is not a number"),
]


@pytest.mark.parametrize(("name", "value", "problem"), PEER_FIELDS, ids=lambda value: repr(value)[:25])
def test_each_field_of_a_peer_is_checked_and_named(name: str, value: object, problem: str) -> None:
    bad = {"public_key": key(2), name: value}
    error = refusal({"name": "wg0", "peers": [{"public_key": key(1)}, bad]})
    assert error.field == f"instances[2].peers[1].{name}"
    assert problem in error.problem


def test_an_allowed_ip_is_named_by_its_place() -> None:
    peers = [{"public_key": key(1), "allowed_ips": ["10.0.0.1/32", "10.0.0.9/24"]}]
    error = refusal({"name": "wg0", "peers": peers})
    assert error.field == "instances[2].peers[0].allowed_ips[1]"
    assert error.problem == "'10.0.0.9/24' has host bits set; the network is 10.0.0.0/24"


@pytest.mark.parametrize("one", [None, 5, key(1), [key(1)]])
def test_a_peer_is_a_mapping(one: object) -> None:
    error = refusal({"name": "wg0", "peers": [one]})
    assert (error.field, error.problem) == ("instances[2].peers[0]", "is not a mapping")


def test_a_mistyped_field_of_a_peer_is_named() -> None:
    error = refusal({"name": "wg0", "peers": [{"public_key": key(1), "psk": preshared_key(1)}]})
    assert error.field == "instances[2].peers[0]"
    assert error.problem.startswith("unknown field 'psk'; known are public_key, ")
    assert preshared_key(1) not in str(error)


def test_a_key_twice_is_refused() -> None:
    error = refusal(
        {"name": "wg0", "peers": [{"public_key": key(1)}, {"public_key": key(2)}, {"public_key": key(1)}]}
    )
    assert error.field == "instances[2].peers[2].public_key"
    assert error.problem == f"{key(1)} is there twice"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.0.0.2/32", "10.0.0.2"),
        ("10.0.0.0/24", "10.0.0.9/32"),
        ("0.0.0.0/0", "10.0.0.9/32"),
        ("fd00::/64", "FD00:0::9"),
        ("::ffff:192.0.2.1", "::ffff:c000:0201"),
    ],
)
def test_networks_of_two_peers_that_overlap_are_refused(first: str, second: str) -> None:
    peers = [{"public_key": key(1), "allowed_ips": [first]}, {"public_key": key(2), "allowed_ips": [second]}]
    error = refusal({"name": "wg0", "peers": peers})
    assert error.field == "instances[2].peers"
    assert error.problem.startswith("allowed_ips of two peers overlap: ")
    assert key(1) in error.problem
    assert key(2) in error.problem


def test_one_peer_may_have_networks_that_nest() -> None:
    one = {"public_key": key(1), "allowed_ips": ["10.0.0.0/24", "10.0.0.9/32", "10.0.0.9"]}
    assert check_peers([one], "peers")[key(1)].allowed_ips == ("10.0.0.0/24", "10.0.0.9/32")


# ---- what is taken, and in which form


def test_a_whole_instance_in_normal_form() -> None:
    fields = {
        "name": "wg0",
        "private_key": key(5),
        "public_key": key(6),
        "listen_port": "51820",
        "addresses": ["10.0.0.1/24", "FD00::1/64"],
        "mtu": 1380,
        "fwmark": "7",
        "table": 51820,
        "post_up": " iptables -A FORWARD -i %i -j ACCEPT ",
        "pre_down": ["a", "b"],
        "peers": [
            {
                "public_key": key(1),
                "preshared_key": preshared_key(1),
                "allowed_ips": "10.0.0.3, 10.0.0.2/32 ,FD00::2",
                "persistent_keepalive": "25",
                "endpoint": "[FD00::9]:051820",
                "name": "phone",
                "peer_id": "a-b-c",
            }
        ],
        "purge_peers": "no",
        "max_removals": "0",
        "enabled": "Yes",
        "config_dir": "/etc/../etc/wireguard/",
    }
    wanted = check_instance(fields, "")
    allowed = ("10.0.0.2/32", "10.0.0.3/32", "fd00::2/128")
    assert wanted == Desired(
        name="wg0",
        private_key=wanted.private_key,
        public_key=key(6),
        listen_port=51820,
        addresses=("10.0.0.1/24", "fd00::1/64"),
        mtu=1380,
        fwmark=7,
        table="51820",
        post_up=("iptables -A FORWARD -i %i -j ACCEPT",),
        pre_down=("a", "b"),
        peers={key(1): Peer(key(1), allowed, preshared_key(1), 25, "[fd00::9]:51820")},
        purge_peers=False,
        max_removals=0,
        enabled=True,
        config_dir="/etc/wireguard",
    )
    assert wanted.config_path == "/etc/wireguard/wg0.conf"
    assert wanted.hooks(Hooks(pre_up=("kept",), post_up=("gone",))) == Hooks(
        ("kept",), ("iptables -A FORWARD -i %i -j ACCEPT",), ("a", "b"), ()
    )
    assert private_key(5) not in repr(wanted)
    assert preshared_key(1) not in repr(wanted)


def test_none_is_the_same_as_nothing() -> None:
    nothing = dict.fromkeys(
        ["state", "private_key", "public_key", "listen_port", "addresses", "mtu", "fwmark", "table", *HOOKS, "peers",
         "purge_peers", "max_removals", "enabled", "config_dir"]
    )  # fmt: skip
    assert check_instance({"name": "wg0", **nothing}, "") == Desired("wg0")


def test_an_empty_list_is_not_nothing() -> None:
    wanted = check_instance({"name": "wg0", "peers": [], "addresses": [], "post_up": []}, "")
    assert (wanted.peers, wanted.addresses, wanted.post_up) == ({}, (), ())


@pytest.mark.parametrize(
    ("value", "text"), [("auto", "auto"), ("off", "off"), (False, "off"), (5, "5"), ("05", "5")]
)
def test_tables(value: object, text: str) -> None:
    assert check_table(value, "f") == text


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 0), ("off", 0), (False, 0), (0, 0), ("25", 25), (65535, 65535)]
)
def test_keepalives(value: object, seconds: int) -> None:
    assert check_keepalive(value, "f") == seconds


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (None, None), ("", None), ("192.0.2.1:51820", "192.0.2.1:51820"), ("vpn.example.com:1", "vpn.example.com:1"),
        ("[::FFFF:192.0.2.1]:1", "[::ffff:192.0.2.1]:1"),
    ],
)  # fmt: skip
def test_endpoints(value: object, normal: str | None) -> None:
    assert check_endpoint(value, "f") == normal


@pytest.mark.parametrize("value", [[], "", " , ", ()])
def test_no_allowed_ips(value: object) -> None:
    assert check_allowed_ips(value, "f") == ()


@pytest.mark.parametrize("word", ["yes", "True", "ON", "1", 1, True])
def test_yes(word: object) -> None:
    assert boolean(word, "f") is True


@pytest.mark.parametrize("word", ["no", "False", "OFF", "0", 0, False])
def test_no(word: object) -> None:
    assert boolean(word, "f") is False


@given(st.integers() | st.text() | st.floats() | st.none() | st.booleans())
def test_numbers_are_numbers_in_their_range(value: object) -> None:
    numbers: list[int] = []
    error = found(lambda: numbers.append(integer(value, "f", 1, 65535)))
    if error is not None:
        assert len(str(error)) < 200
        return
    assert type(numbers[0]) is int
    assert 1 <= numbers[0] <= 65535
    assert numbers[0] == int(value)  # type: ignore[call-overload]


# ---- anything at all


def found(check: Callable[[], object]) -> InvalidInput | None:
    """What a check complains of, if it does. Any other exception comes through."""
    try:
        check()
    except InvalidInput as error:
        return error
    return None


rubbish = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | keys
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
INSTANCE_FIELDS = ["name", "state", "private_key", "listen_port", "addresses", "mtu", "fwmark", "table", *HOOKS,
                   "peers", "purge_peers", "max_removals", "enabled", "config_dir"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(INSTANCE_FIELDS), rubbish))
def test_rubbish_is_refused_by_name_and_breaks_nothing(fields: dict[str, Any]) -> None:
    error = found(lambda: check_instance({"name": "wg0", **fields}, "instances[0]"))
    if error is None:
        return
    assert error.field.startswith("instances[0].")
    assert len(str(error)) < 300
    if isinstance(fields.get("private_key"), str) and len(fields["private_key"]) > 12:
        assert fields["private_key"] not in str(error)


@given(st.dictionaries(st.sampled_from(["public_key", *[name for name, _v, _p in PEER_FIELDS]]), rubbish))
def test_rubbish_for_a_peer_is_refused_by_name_and_breaks_nothing(fields: dict[str, Any]) -> None:
    error = found(lambda: check_peer({"public_key": key(1), **fields}, "peers[0]"))
    if error is not None:
        assert error.field.startswith("peers[0].")
        assert len(str(error)) < 300
