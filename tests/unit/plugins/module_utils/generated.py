"""Made-up keys, peers, files and interface states for tests: fixed ones by number, random ones by hypothesis."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import render
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import ZERO_KEY, check_private_key
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    Hooks,
    InterfaceState,
    Link,
    Peer,
    Route,
    Unit,
)

T = TypeVar("T")

# ---- fixed ones


@cache
def key(number: int) -> str:
    """A public or preshared key, always the same for the same number."""
    return base64.b64encode(hashlib.sha256(b"key %d" % number).digest()).decode()


@cache
def private_key(number: int) -> str:
    """A private key in the form in which wg gives it back."""
    return check_private_key(key(100_000 + number), "")


def preshared_key(number: int) -> str:
    """A preshared key."""
    return key(200_000 + number)


@cache
def public_key_of(private: str) -> str:
    """Stands in for ``wg pubkey``: what matters is that it is a function."""
    return base64.b64encode(hashlib.sha256(b"public key of " + private.encode()).digest()).decode()


def peer(number: int, *allowed_ips: str, **fields: object) -> Peer:
    """A peer with key(number)."""
    return Peer(key(number), tuple(sorted(allowed_ips)), **fields)  # type: ignore[arg-type]


def by_key(*peers: Peer) -> dict[str, Peer]:
    """Peers as devices and configs hold them."""
    return {one.public_key: one for one in peers}


def running(
    peers: Mapping[str, Peer] = {}, *, table: str = "off", addresses: Sequence[str] = ()
) -> InterfaceState:
    """An interface that is up and whose file says just what runs."""
    config = Config(private_key(1), 51820, tuple(addresses), dict(peers), table=table)
    return InterfaceState(
        device=Device(config.private_key, public_key_of(private_key(1)), 51820, 0, dict(peers)),
        link=Link(True, 1420, frozenset(addresses)),
        routes=wanted_routes(table, addresses, peers.values()),
        file=render(config),
        config=config,
    )


# ---- any at all

keys = st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode())
public_keys = keys.filter(lambda text: text != ZERO_KEY)

_any_address = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def _networks(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> st.SearchStrategy[str]:
    lengths = st.integers(0, address.max_prefixlen)
    return lengths.map(lambda length: str(ipaddress.ip_network(f"{address}/{length}", strict=False)))


# As a person may write them; in normal form.
networks = _any_address.flatmap(_networks)
normal_networks = networks.map(lambda text: check_allowed_ip(text, ""))
# Networks close together, so that they often nest and meet.
near_networks = st.one_of(
    st.tuples(st.integers(0, 255), st.integers(22, 32)).map(
        lambda pair: str(ipaddress.ip_network(f"10.0.0.{pair[0]}/{pair[1]}", strict=False))
    ),
    st.tuples(st.integers(0, 15), st.integers(120, 128)).map(
        lambda pair: check_allowed_ip(
            str(ipaddress.ip_network(f"fd00::{pair[0]:x}/{pair[1]}", strict=False)), ""
        )
    ),
    st.sampled_from(["0.0.0.0/0", "::/0"]),
)
# One line as it may stand in a file: no control characters, no comment.
lines = (
    st.text(
        st.characters(exclude_categories=["Cc", "Zl", "Zp"], exclude_characters="#"), min_size=1, max_size=60
    )
    .map(str.strip)
    .filter(bool)
)


def _key_of(rng: Random) -> str:
    return base64.b64encode(rng.randbytes(32)).decode()


def _network_of(rng: Random) -> str:
    family, bits = rng.choice([(socket.AF_INET, 32), (socket.AF_INET6, 128)])
    length = rng.choice([0, rng.randint(0, bits), bits, bits])
    number = rng.getrandbits(bits) >> (bits - length) << (bits - length)
    return f"{socket.inet_ntop(family, number.to_bytes(bits // 8, 'big'))}/{length}"


def _address_of(rng: Random) -> str:
    family, bits = rng.choice([(socket.AF_INET, 32), (socket.AF_INET6, 128)])
    return f"{socket.inet_ntop(family, rng.randbytes(bits // 8))}/{rng.randint(0, bits)}"


def _peer_of(rng: Random) -> Peer:
    return Peer(
        _key_of(rng),
        tuple(sorted({_network_of(rng) for _ in range(rng.choice([0, 1, 1, 2, 5]))})),
        rng.choice([None, _key_of(rng)]),
        rng.choice([0, 0, 25, rng.randint(0, 65535)]),
        rng.choice(
            [None, None, "192.0.2.1:1", "[fd00::1]:65535", "vpn.example.com:51820", "[::ffff:192.0.2.1]:9"]
        ),
    )


# Lines as they may stand in a file, beside those that hypothesis finds.
ODD_LINES = [
    "a=b",
    "= x",
    "[Peer]",
    "echo '\u00e4 \U0001f600'",
    "PostUp = x",
    "\udcff",
    "a\u2028b",
    "%i %% {{ x }}",
    ";",
]


def config_of(rng: Random, some_lines: Sequence[str]) -> Config:
    """Any config that a file can hold; hooks and names out of `some_lines` and ODD_LINES."""

    def text() -> tuple[str, ...]:
        return tuple(rng.choice([*ODD_LINES, *some_lines]) for _ in range(rng.choice([0, 0, 1, 3])))

    return Config(
        private_key=rng.choice([None, check_private_key(_key_of(rng), "")]),
        listen_port=rng.choice([None, rng.randint(1, 65535)]),
        addresses=tuple({_address_of(rng) for _ in range(rng.randint(0, 3))}),
        peers=by_key(*(_peer_of(rng) for _ in range(rng.choice([0, 1, 2, 3, 30])))),
        mtu=rng.choice([None, rng.randint(68, 65535)]),
        fwmark=rng.choice([0, 1, 51820, 0xFFFFFFFF]),
        table=rng.choice(["auto", "off", str(rng.randint(1, 4294967295))]),
        hooks=Hooks(text(), text(), text(), text()),
        dns=text(),
    )


def configs() -> st.SearchStrategy[Config]:
    """Configs as of config_of()."""
    seeds = st.integers(0, 2**64 - 1)
    return st.builds(lambda seed, some: config_of(Random(seed), some), seeds, st.lists(lines, max_size=2))


# ---- out of small pools, so that what is asked for and what is there often meet

POOL_KEYS = [key(number) for number in range(7)]
# No two of them overlap.
POOL_NETWORKS = [
    "10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32", "10.0.1.0/24", "10.7.0.0/16", "192.168.9.0/24",
    "fd00::2/128", "fd00::3/128", "fd00:1::/64",
]  # fmt: skip
# The kernel holds nested networks as well; parameters may not.
NESTED_NETWORKS = [*POOL_NETWORKS, "10.0.1.7/32", "10.0.0.0/29"]
POOL_ADDRESSES = [
    "10.0.0.1/24",
    "10.0.0.250/24",
    "10.7.0.1/32",
    "192.168.9.1/24",
    "fd00::1/64",
    "fd00:1::1/128",
]
FOREIGN_ROUTES = [Route("172.16.0.0/12", "main"), Route("172.16.0.0/12", "77"), Route("fd99::/64", "main")]
ROAMED = [None, "192.0.2.77:40001", "[fd00::77]:40002"]
TABLES = ["auto", "off", "51820", "77"]
HOOKS = [(), ("echo up",), ("true", "echo %i")]


def _some(rng: Random, values: Sequence[T]) -> list[T]:
    """Each value or not, in any order."""
    return rng.sample(values, rng.randint(0, len(values)))


def peer_map(
    rng: Random, from_networks: Sequence[str], from_endpoints: Sequence[str | None]
) -> dict[str, Peer]:
    """Peers by key; each network belongs to one of them at the most."""
    names = _some(rng, POOL_KEYS)
    owned: dict[str, list[str]] = {name: [] for name in names}
    if names:
        for net in _some(rng, from_networks):
            owned[rng.choice(names)].append(net)
    return {
        name: Peer(
            name,
            tuple(sorted(nets)),
            rng.choice([None, None, preshared_key(1), preshared_key(2)]),
            rng.choice([0, 0, 25]),
            rng.choice(from_endpoints),
        )
        for name, nets in owned.items()
    }


BROKEN_TEXTS = [
    "",
    "[Interface]\nPrivateKey = tooshort\n",
    f"[Interface]\nPrivatKey = {private_key(7)}\n",
    f"[Interface]\nPrivateKey = {private_key(7)}\n[Peer]\nPresharedKey = {preshared_key(7)}\n",
    f"PrivateKey = {private_key(7)}\n[Interface]\n",
    f"[Interface]\n{private_key(7)}\n",
    f"[Interface]\nPrivateKey {private_key(7)}\n[peer]\npresharedkey={preshared_key(7)}",
]
# All secrets that states of these pools may hold.
POOL_SECRETS = [
    *(private_key(number) for number in (1, 2, 3, 7)),
    *(preshared_key(number) for number in (1, 2, 7)),
]


def interface_state(rng: Random) -> InterfaceState:
    """A state in which a node may be found: with and without interface, file, unit, all more or less in step."""
    live = peer_map(rng, NESTED_NETWORKS, ROAMED)
    if rng.random() < 0.5:
        filed = {name: one._replace(endpoint=None) for name, one in live.items()}
    else:
        filed = peer_map(rng, POOL_NETWORKS, [None, None, "vpn.example.com:51820"])
    addresses = tuple(_some(rng, POOL_ADDRESSES))
    private = private_key(rng.choice([1, 1, 2]))
    port = rng.choice([51820, 51821])
    written = Config(
        private_key=private,
        listen_port=port,
        addresses=addresses if rng.random() < 0.5 else tuple(_some(rng, POOL_ADDRESSES)),
        peers=filed,
        mtu=rng.choice([None, 1380]),
        fwmark=rng.choice([0, 0, 7]),
        table=rng.choice(TABLES),
        hooks=Hooks(*(rng.choice(HOOKS) for _ in range(4))),
    )
    config: Config | None = written
    text: str | None = render(written)
    how = rng.choice(["ours", "ours", "ours", "edited", "broken", "gone"])
    if how == "edited":
        text = f"{text}\n# a word by hand\n"
    elif how == "broken":
        text, config = rng.choice(BROKEN_TEXTS), None
    elif how == "gone":
        text = config = None

    device, link = None, None
    routes: frozenset[Route] = frozenset()
    if rng.random() < 0.75:
        up = rng.random() < 0.75
        own = public_key_of(private)
        device = Device(private, own, port, rng.choice([0, 7]), live)
        link = Link(up, rng.choice([1380, 1420]), frozenset(addresses))
        if up:
            should = sorted(wanted_routes(config.table if config else "auto", addresses, live.values()))
            ours = should if rng.random() < 0.5 else _some(rng, should)
            routes = frozenset([*ours, *_some(rng, FOREIGN_ROUTES)])
    unit = None
    if rng.random() < 0.5:
        unit = Unit(rng.random() < 0.5, config is not None and rng.random() < 0.5)
    return InterfaceState(
        device=device,
        link=link,
        routes=routes,
        file=text,
        file_is_private=text is None or rng.random() < 0.7,
        config=config,
        unit=unit,
    )


def wish(rng: Random, states: Sequence[str]) -> Desired:
    """One instance as asked for, with more or less left open."""

    def maybe(value: T) -> T | None:
        return value if rng.random() < 0.5 else None

    return Desired(
        name="wg0",
        state=rng.choice(states),
        private_key=maybe(private_key(rng.choice([1, 3]))),
        listen_port=maybe(rng.choice([51820, 51830])),
        addresses=maybe(tuple(_some(rng, POOL_ADDRESSES))),
        mtu=maybe(rng.choice([1380, 1400])),
        fwmark=maybe(rng.choice([0, 7, 9])),
        table=maybe(rng.choice(TABLES)),
        pre_up=maybe(rng.choice(HOOKS)),
        post_up=maybe(rng.choice(HOOKS)),
        pre_down=maybe(rng.choice(HOOKS)),
        post_down=maybe(rng.choice(HOOKS)),
        peers=maybe(
            peer_map(rng, POOL_NETWORKS, [None, None, None, "vpn.example.com:51820", "192.0.2.9:51820"])
        ),
        purge_peers=rng.random() < 0.75,
        max_removals=rng.choice([100, 100, 100, None, 1]),
        enabled=rng.choice([True, True, False, None]),
    )


# By a number each, since thousands of states are wanted and drawing them piece by piece takes 20 ms for one.
_seeds = st.integers(0, 2**64 - 1)


def interface_states() -> st.SearchStrategy[InterfaceState]:
    """States as of interface_state()."""
    return _seeds.map(lambda seed: interface_state(Random(seed)))


def wishes(
    states: Sequence[str] = ("present", "present", "present", "disconnected"),
) -> st.SearchStrategy[Desired]:
    """Instances as of wish()."""
    return _seeds.map(lambda seed: wish(Random(seed), states))
