"""Bad parameters: each is refused by name, before anything is touched, and never holds up anybody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import Result, Task, Unsafe, play, script, task
from tests.e2e.node_state import READ_STATE, NodeState, parse_state
from tests.e2e.wg_node import Bystander, empty
from tests.e2e.wireguard_keys import peer, peer_key, preshared_key, private_key, public_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander

SECRET = preshared_key("a")


A, B = peer("a", "10.7.0.2/32", "fd00:7::2/128"), peer("b", "10.7.0.3/32")
OTHERS = [peer(f"other {number}", f"10.7.0.{number}/32") for number in range(20, 30)]
#: What is no peer at all.
ODD: tuple[Any, ...] = ("x", [], None, {})
RUNNING: dict[str, Any] = {
    "name": "wg7",
    "private_key": private_key("wg7"),
    "listen_port": 20007,
    "addresses": ["10.7.0.1/24", "fd00:7::1/64"],
    "peers": [A, B, *OTHERS],
}


@dataclass(frozen=True)
class Bad:
    """A call that is to be refused with a message that matches `says` from its beginning."""

    name: str
    asked: dict[str, Any]
    says: str
    module: str = "wg_instance"


def instance(name: str, says: str, **asked: Any) -> Bad:
    return Bad(name, {"name": "wg7", **asked}, says)


def with_peer(name: str, says: str, **fields: Any) -> Bad:
    """wg_instance with the running peers and one more whose fields are wrong."""
    return instance(name, says, peers=[A, B, *OTHERS, {"public_key": peer_key("c"), **fields}])


def wg_peer(name: str, says: str, **asked: Any) -> Bad:
    return Bad(f"wg_peer: {name}", {"interface": "wg7", **asked}, says, "wg_peer")


def wg_drift(name: str, says: str, **asked: Any) -> Bad:
    return Bad(f"wg_drift: {name}", {"interface": "wg7", **asked}, says, "wg_drift")


NAMES = [
    "sixteen_letters_", "", ".", "..", "../../x", "/etc/passwd", "a/b", "-h", "--help", "all", "lo", "wg 7", "wg7\n",
    "\nwg7", "wg7\x00", "wg7;id", "$(id)", "`id`", "wg7|id", "{{ 7*7 }}", "{{ lookup('pipe', 'id') }}", "{% raw %}",
    "wgé", "wg\u0660", "wg\u200b7", "wg*", "%i",
]  # fmt: skip
NO_NAME = r"name: .* is no interface name: 1 to 15 characters"

BAD = [
    *(Bad(f"name {name!r}", {"name": Unsafe(name), "state": state}, NO_NAME)
      for name in NAMES for state in ("present", "absent")),
    Bad("no name", {"state": "present"}, "one of name, instances and src is needed"),
    Bad("two ways to say it", {"name": "wg7", "instances": []}, "name: goes with|instances: goes with|name"),
    Bad("the node's own interface", {"name": "eth0"}, "eth0: eth0 exists on this node and is not a WireGuard"),
    Bad("the node's own interface, to be removed", {"name": "eth0", "state": "absent"}, "eth0: eth0 exists"),
    # the interface
    instance("state", r".*state.*gone", state="gone"),
    *(instance(f"private key {name}", r"private_key: is not a WireGuard private key", private_key=Unsafe(key))
      for name, key in {
          "short": private_key("x")[:-2], "without its end": private_key("x")[:-1], "long": private_key("x") + "A",
          "of other characters": "!" * 43 + "=", "with bits too many": private_key("x")[:42] + "B=",
          "with a newline": private_key("x") + "\n", "empty": "", "hexadecimal": "ab" * 32,
          "a template": "{{ 7*7 }}"}.items()),
    instance("private key zero", "private_key: is the all-zero key", private_key="A" * 43 + "="),
    *(instance(f"port {port!r}", r".*listen_port.*", listen_port=port) for port in (0, -1, 65536, "x", 1.5, "7 ")),
    *(instance(f"address {address!r}", r"addresses\[1\]: ", addresses=["10.7.0.1/24", Unsafe(address)])
      for address in ("10.7.0.1/33", "10.7.0", "10.7.0.256/24", "fd00::1/129", "10.7.0.1/24/24", "fe80::1%eth0/64",
                      "10.7.0.1/24; id", "", "vpn.example.com/24", "10.7.0.1/-1", "10.7.0.1/+8", "010.7.0.1/24")),
    instance("address twice", r"addresses: an address is there twice", addresses=["fd00:7::1/64", "fd00:07:0::1/64"]),
    *(instance(f"mtu {mtu!r}", r".*mtu.*", mtu=mtu) for mtu in (0, 575, 65536, "big")),
    instance("mtu below IPv6's", r"wg7: mtu: 1279 is too low for the IPv6 addresses", mtu=1279),
    *(instance(f"fwmark {mark!r}", r".*fwmark.*", fwmark=mark) for mark in (-1, 4294967296, "x")),
    *(instance(f"table {table!r}", r"table: ", table=Unsafe(table))
      for table in ("main", "0", "-1", "4294967296", "auto; id", "local")),
    *(instance(f"hook {hook!r}", r"post_up\[1\]: is not one line", post_up=["true", Unsafe(hook)])
      for hook in ("true\nPrivateKey = x", "true # comment", "a\rb", "a\x00b", "")),
    *(instance(f"max_removals {most!r}", r".*max_removals.*", max_removals=most) for most in (-1, "x")),
    instance("config_dir", r"config_dir: is not an absolute path", config_dir=Unsafe("{{ x }}")),
    # peers
    *(instance(f"peers [{entry!r}]", r".*peers.*", peers=[entry]) for entry in ODD),
    *(instance(f"public key {key!r}", r"peers\[12\]\.public_key: is not a WireGuard key",
               peers=[A, B, *OTHERS, {"public_key": Unsafe(key), "allowed_ips": ["10.7.0.9/32"]}])
      for key in ("", "x", peer_key("c")[:-1], peer_key("c") + "\n", "{{ 7*7 }}", "-h", "../../x", "ключ")),
    instance("public key zero", r"peers\[0\]\.public_key: is the all-zero key", peers=[{"public_key": "A" * 43 + "="}]),
    instance("public key twice", r"peers\[1\]\.public_key: .* is there twice", peers=[A, A]),
    instance("own key as a peer", rf"wg7: peers: {re.escape(public_key('wg7'))} is the interface's own public key",
             peers=[A, B, *OTHERS, {"public_key": public_key("wg7"), "allowed_ips": ["10.7.0.9/32"]}]),
    instance("own new key as a peer", r"wg7: peers: .* is the interface's own public key",
             private_key=private_key("new"),
             peers=[A, B, *OTHERS, {"public_key": public_key("new"), "allowed_ips": ["10.7.0.9/32"]}]),
    *(with_peer(f"preshared key {key!r}", r"peers\[12\]\.preshared_key: is not a WireGuard preshared key",
                preshared_key=Unsafe(key)) for key in ("x", SECRET[:-1], SECRET + "\n", "{{ 7*7 }}")),
    *(with_peer(f"network {net!r}", rf"peers\[12\]\.allowed_ips\[0\]: .*{says}", allowed_ips=[Unsafe(net)])
      for net, says in {
          "10.7.0.9/24": "host bits set; the network is 10.7.0.0/24",
          "fd00:7::9/64": "host bits set; the network is fd00:7::/64",
          "0.0.0.1/0": "host bits set; the network is 0.0.0.0/0", "10.7.0.9/33": "prefix length",
          "fd00::/129": "prefix length", "10.7.0.9/": "prefix length", "10.7.0": "is not an IPv4 or IPv6 address",
          "": "is not an IPv4", "10.7.0.9/32\n[Peer]": "prefix length", "10.7.0.9;id": "is not an IPv4",
          "$(id)": "is not an IPv4", "{{ 7*7 }}": "is not an IPv4", "10.7.0.\u0669": "is not an IPv4",
          "device.example.com": "is not an IPv4", "-h": "is not an IPv4"}.items()),
    *(with_peer(f"overlap {net}", r"peers: allowed_ips of two peers overlap: ", allowed_ips=[net])
      for net in ("10.7.0.3/32", "10.7.0.3", "10.7.0.0/24", "10.0.0.0/8", "fd00:7::2/128", "fd00:7::/64")),
    instance("overlap within another", r"peers: allowed_ips of two peers overlap: 10.8.0.0/16 of .* and 10.8.3.0/24",
             peers=[A, B, *OTHERS, peer("c", "10.8.3.0/24"), peer("d", "10.8.0.0/16")]),
    instance("overlap with a kept peer", r"wg7: peers \(together with those on the node.*overlap: 10.7.0.3/32",
             peers=[peer("c", "10.7.0.3/32")], purge_peers=False),
    instance("everything through a customer", r"wg7: allowed_ips 0.0.0.0/0 with table auto would send",
             peers=[peer("c", "0.0.0.0/0")], max_removals=12),
    *(with_peer(f"keepalive {seconds!r}", r"peers\[12\]\.persistent_keepalive: ", persistent_keepalive=seconds)
      for seconds in (-1, 65536, "x", 2.5, True)),
    *(with_peer(f"endpoint {endpoint!r}", r"peers\[12\]\.endpoint: ", endpoint=Unsafe(endpoint))
      for endpoint in ("x", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "[::1]", "::1", "a b:1", "a;id:1",
                       "-h:1", "[fe80::1%eth0]:1", "{{ 7*7 }}:1", "x:1\nPostUp = id")),
    with_peer("unknown field", r"peers\[12\]: unknown field 'presharedkey'", presharedkey=SECRET),
    # guards
    instance("no peers at all", r"wg7: 12 of 12 peers would be removed from wg7, 0 are allowed: .* max_removals to 12",
             peers=[]),
    instance("too many peers gone", r"wg7: 11 of 12 peers would be removed from wg7, 10 are allowed", peers=[A]),
    instance("more gone than allowed", r"wg7: 2 of 12 peers would be removed from wg7, 1 are allowed", peers=OTHERS,
             max_removals=1),
    # wg_peer
    wg_peer("no key", r"public_key: ", allowed_ips=["10.7.0.9/32"]),
    wg_peer("bad key", r"public_key: is not a WireGuard key", public_key="x"),
    wg_peer("bad key to be removed", r"public_key: is not a WireGuard key", public_key="x", state="absent"),
    wg_peer("bad preshared key", r"\.?preshared_key: is not", public_key=peer_key("c"), preshared_key="x"),
    wg_peer("host bits", r"\.?allowed_ips\[0\]: .* host bits", public_key=peer_key("c"), allowed_ips=["10.7.0.9/24"]),
    wg_peer("keepalive", r"\.?persistent_keepalive: ", public_key=peer_key("c"), persistent_keepalive=70000),
    wg_peer("own key", rf"wg7: peers: {re.escape(public_key('wg7'))} is the interface's own",
            public_key=public_key("wg7")),
    wg_peer("overlap", r"wg7: allowed_ips: allowed_ips of two peers overlap: 10.7.0.3/32 of", public_key=peer_key("c"),
            allowed_ips=["10.7.0.3/32"]),
    wg_peer("overlap around", r"wg7: allowed_ips: allowed_ips of two peers overlap: ", public_key=peer_key("c"),
            allowed_ips=["10.7.0.0/28"]),
    wg_peer("overlap by a change", r"wg7: allowed_ips: allowed_ips of two peers overlap: ", public_key=peer_key("a"),
            allowed_ips=["10.7.0.3/32"]),
    wg_peer("twice", r"peers\[1\]\.public_key: .* is there twice",
            peers=[{"public_key": peer_key("c")}, {"public_key": peer_key("c"), "state": "absent"}]),
    wg_peer("two ways to say it", r"public_key: goes with a single peer", public_key=peer_key("c"), peers=[A]),
    wg_peer("one of many", r"peers\[1\]\.allowed_ips\[0\]: ", peers=[peer("c", "10.7.0.9/32"), peer("d", "x")]),
    wg_peer("state", r"peers\[0\]\.state: is not one of", peers=[{"public_key": peer_key("c"), "state": "gone"}]),
    Bad("wg_peer: name", {"interface": "../../x", **A}, r"interface: .* is no interface name", "wg_peer"),
    Bad("wg_peer: no such interface", {"interface": "wg99", **A}, r"wg99: there is no such interface; bring it up",
        "wg_peer"),
    # wg_drift
    wg_drift("no peers given", r"peers: is needed"),
    wg_drift("overlap", r"peers: allowed_ips of two peers overlap", peers=[A, peer("c", "10.7.0.0/24")]),
    wg_drift("twice", r"peers\[1\]\.public_key: .* is there twice", peers=[A, A], remove_unknown=True),
    wg_drift("port", r".*listen_port.*", peers=[A], listen_port=65536),
    Bad("wg_drift: name", {"interface": "{{'../x'}}", "peers": []}, r"interface: .* is no interface name", "wg_drift"),
    Bad("wg_drift: interface twice", {"interfaces": [{"interface": "wg7", "peers": []}] * 2},
        r"interfaces\[1\]\.interface: wg7 is there twice", "wg_drift"),
    Bad("wg_info: name", {"interfaces": ["wg7", "../../x"]}, r"interfaces\[1\]: .* is no interface name", "wg_info"),
]  # fmt: skip


def _first_of_its_kind(bad: Bad) -> bool:
    """Whether no row before it asks for the same parameters (with other values)."""
    return next(bad is other for other in BAD if _kind(other) == _kind(bad))


def _kind(bad: Bad) -> tuple[str, str, tuple[str, ...]]:
    return bad.module, re.split(r"[\[:]", bad.says)[0] + str(bad.says.count("peers")), tuple(bad.asked)


# Parameters that are wrong in themselves are looked at before anything else: all of these go into one call.
IN_A_BATCH = [
    bad
    for bad in BAD
    if bad.module == "wg_instance"
    and "instances" not in bad.asked
    and not bad.says.startswith(("wg7:", "eth0:", "one"))
]
ALONE = [bad for bad in BAD if bad not in IN_A_BATCH or _first_of_its_kind(bad)]


@dataclass(frozen=True)
class Refusals:
    """All bad calls, made one after the other, and the node before and after."""

    alone: dict[str, Result]
    batch: Result
    before: NodeState
    after: NodeState


@pytest.fixture(scope="module")
def refusals(lab: Lab, node: Node, bystander: Bystander) -> Iterator[Refusals]:
    empty(node)
    session = bystander.state()
    node.write("/run/read-state", READ_STATE)
    tasks: list[Task] = [task("given", "wg_instance", RUNNING), script("before", "sh /run/read-state")]
    tasks += [task(f"bad: {bad.name}", bad.module, bad.asked) for bad in ALONE]
    tasks += [task("batch", "wg_instance", {"instances": [bad.asked for bad in IN_A_BATCH]})]
    run = play(lab, node, [*tasks, script("after", "sh /run/read-state")])
    assert not run["given"].failed, run["given"].message
    yield Refusals(
        {bad.name: run[f"bad: {bad.name}"] for bad in ALONE},
        run["batch"],
        parse_state(run["before"].stdout),
        parse_state(run["after"].stdout),
    )
    bystander.check(session)
    empty(node)


@pytest.mark.parametrize("bad", ALONE, ids=lambda bad: bad.name)
def test_is_refused_by_name(refusals: Refusals, bad: Bad) -> None:
    result = refusals.alone[bad.name]
    assert result.failed
    assert not result.changed
    assert re.match(bad.says, result.message), result.message
    assert "Traceback" not in result.message
    assert "MODULE FAILURE" not in result.message


@pytest.mark.parametrize("number", range(len(IN_A_BATCH)), ids=lambda number: IN_A_BATCH[number].name)
def test_is_refused_by_name_and_place(refusals: Refusals, number: int) -> None:
    assert refusals.batch.failed
    assert not refusals.batch.changed
    entries = refusals.batch.answer["instances"]
    assert len(entries) == len(IN_A_BATCH)
    says = re.compile(rf"instances\[{number}\]\.{IN_A_BATCH[number].says}")
    assert says.match(entries[number]["error"]), entries[number]["error"]


def test_nothing_is_touched(refusals: Refusals) -> None:
    assert refusals.after.interfaces == refusals.before.interfaces
    assert refusals.after.links == refusals.before.links
    assert refusals.after.routes == refusals.before.routes
    configs = [
        {path: file for path, file in state.files.items() if path.startswith("/etc/")}
        for state in (refusals.before, refusals.after)
    ]
    assert configs[0] == configs[1]


def test_one_of_many_does_not_hold_up_the_others(lab: Lab, node: Node, bystander: Bystander) -> None:
    empty(node)
    session = bystander.state()
    node.run(["ip", "link", "add", "wg13", "type", "bridge"])
    good = {
        **RUNNING,
        "name": "wg10",
        "listen_port": 20010,
        "addresses": ["10.10.0.1/24"],
        "peers": [peer("a", "10.10.0.2/32")],
    }
    instances = [
        good,
        {**good, "name": "wg11", "listen_port": 70000},
        {**good, "name": "wg12", "listen_port": 20012, "peers": [A, peer("b", "10.7.0.2/32")]},
        {**good, "name": "wg13", "listen_port": 20013},
        {**good, "name": "../wg14", "listen_port": 20014},
        "wg15",
        {"name": "wg7", "peers": []},
        {
            **good,
            "name": "wg16",
            "listen_port": 20016,
            "addresses": ["10.16.0.1/24"],
            "peers": [peer("b", "10.16.0.3/32")],
        },
    ]
    node.write("/run/read-state", READ_STATE)
    run = play(
        lab,
        node,
        [
            task("given", "wg_instance", RUNNING),
            script("before", "sh /run/read-state"),
            task("check", "wg_instance", {"instances": instances}, check=True),
            script("after check", "sh /run/read-state"),
            task("real", "wg_instance", {"instances": instances}),
            script("after", "sh /run/read-state"),
            task("again", "wg_instance", {"instances": instances}),
        ],
    )
    before, after_check, after = (
        parse_state(run[name].stdout) for name in ("before", "after check", "after")
    )
    assert after_check == before
    for name in ("check", "real"):
        assert run[name].failed
        assert run[name].changed
        assert run[name].message.startswith("6 of 8 instances failed. ")
        assert {diff["before_header"] for diff in run[name].diff} == {"wg10", "wg16"}
    assert run["check"].diff == run["real"].diff
    errors = {entry["name"]: entry.get("error") for entry in run["real"].answer["instances"]}
    assert errors.pop("wg10") is None
    assert errors.pop("wg16") is None
    for name, says in {
        "wg11": r"instances\[1\]\.listen_port: ",
        "wg12": r"instances\[2\]\.peers: allowed_ips of two peers overlap",
        "wg13": r"wg13 exists on this node and is not a WireGuard interface \(it is of kind bridge\)",
        "../wg14": r"instances\[4\]\.name: ",
        "instances[5]": r"instances\[5\]: is not a mapping",
        "wg7": r"12 of 12 peers would be removed",
    }.items():
        assert re.match(says, str(errors.pop(name)))
    assert errors == {}
    assert after.interfaces.keys() - before.interfaces.keys() == {"wg10", "wg16"}
    assert after.interfaces["wg10"].peers.keys() == {peer_key("a")}
    assert after.of("wg7") == before.of("wg7")
    assert after.of("wg13") == before.of("wg13")
    assert run["again"].failed
    assert not run["again"].changed
    bystander.check(session)
    empty(node)


@pytest.mark.parametrize(
    ("instances", "says"),
    [
        ([{"name": "wg10"}, {"name": "wg10"}], r"instances\[1\]\.name: wg10 is there twice"),
        (
            [{"name": "wg10", "listen_port": 20010}, {"name": "wg11", "listen_port": 20010}],
            r"instances\[1\]\.listen_port: 20010 is asked for by wg10 and by wg11",
        ),
        ("wg10", "instances: is not a list"),
    ],
    ids=["name twice", "port twice", "no list"],
)
def test_a_batch_that_contradicts_itself_is_refused(lab: Lab, node: Node, instances: Any, says: str) -> None:
    empty(node)
    result = play(lab, node, [task("real", "wg_instance", {"instances": instances})])["real"]
    assert result.failed
    assert re.match(says, result.message), result.message
    assert node.run(["ls", "/run/wireguard"]).stdout.split() in ([], ["wgby.sock"])
