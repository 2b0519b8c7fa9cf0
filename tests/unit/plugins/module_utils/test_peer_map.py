"""What is worked out of a few changes is what would be worked out of the whole."""

from __future__ import annotations

from random import Random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import dump, peer_map
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import render
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import check_overlap
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump, parse_dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import PeerMap, derived
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import peer_changes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import default_routes, routes_for
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    InterfaceState,
    Peer,
)
from tests.e2e.wireguard_keys import peer_key, preshared_key

NETWORKS = [
    "10.0.0.2/32",
    "10.0.0.3/32",
    "10.0.1.0/24",
    "10.0.1.7/32",
    "fd00::2/128",
    "fd00::/64",
    "::/0",
    "10.9.0.1/32",
]
ADDRESSES = ("10.0.0.1/24", "fd00::1/64")


def some_peer(random: Random) -> Peer:
    return Peer(
        peer_key(str(random.randrange(12))),
        tuple(sorted(random.sample(NETWORKS, random.randrange(3)))),
        random.choice([None, preshared_key("a")]),
        random.choice([0, 25]),
        random.choice([None, None, "192.0.2.1:5000"]),
    )


def some_change(random: Random, base: PeerMap) -> PeerMap:
    put = {peer.public_key: peer for peer in (some_peer(random) for _ in range(random.randrange(4)))}
    gone = [key for key in base if random.random() < 0.1 and key not in put]
    return derived(base, list(put.values()), gone)


def overlap(peers: dict[str, Peer]) -> str:
    try:
        check_overlap(peers, "peers")
    except InvalidInput as error:
        return str(error)[:40]
    return ""


def state(peers: dict[str, Peer]) -> InterfaceState:
    return InterfaceState(Device("k", "p", 5, 0, peers), config=Config("k", 5, ADDRESSES, peers), file="x")


def the_same(peers: PeerMap, live: PeerMap) -> None:
    plain, plain_live = dict(peers), dict(live)
    assert render(Config("k", 5, ADDRESSES, peers)) == render(Config("k", 5, ADDRESSES, plain))
    assert sorted(default_routes(peers)) == sorted(default_routes(plain))
    for table in ("auto", "off", "51"):
        assert routes_for(table, ADDRESSES, peers) == routes_for(table, ADDRESSES, plain)
    assert overlap(peers) == overlap(plain)
    quick, slow = peer_changes(state(live), state(peers)), peer_changes(state(plain_live), state(plain))
    assert sorted(quick.put) == sorted(slow.put)
    for field in ("remove", "added", "updated"):
        assert sorted(getattr(quick, field)) == sorted(getattr(slow, field))
    assert quick.before == slow.before


@pytest.mark.parametrize("seed", range(60))
def test_any_sequence_of_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_map, "MOST_CHANGED", 6)
    random = Random(seed)
    asked, live = PeerMap({}), PeerMap({})
    for _turn in range(12):
        asked = some_change(random, asked)
        if random.random() < 0.6:  # what was asked for was applied
            live = derived(
                live,
                [peer for key, peer in asked.items() if live.get(key) != peer],
                [key for key in live if key not in asked],
            )
        else:
            live = some_change(random, live)
        the_same(asked, live)


def owners(peers: dict[str, Peer]) -> dict[str, frozenset[str]]:
    """Whose each network is."""
    return {
        network: frozenset(key for key, peer in peers.items() if network in peer.allowed_ips)
        for network in {network for peer in peers.values() for network in peer.allowed_ips}
    }


def changed_owners(
    before: dict[str, frozenset[str]], changes: list[peer_map.Change]
) -> dict[str, frozenset[str]]:
    """The same out of what it was."""
    found = dict(before)
    for old, new in changes:
        for peer, add in ((old, False), (new, True)):
            for network in peer.allowed_ips if peer is not None else ():
                mine = {peer.public_key} if peer is not None else set()
                others = found.get(network, frozenset())
                found[network] = others | mine if add else others - mine
    return {network: keys for network, keys in found.items() if keys}


KEYS = [peer_key(str(number)) for number in range(8)]
# What is done (also to an older map than the last one), to whose network, and to whom it goes.
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["put", "move", "remove", "settle"]),
        st.integers(0, 40),
        st.sampled_from(KEYS),
        st.sampled_from(KEYS),
        st.sampled_from(NETWORKS),
    ),
    max_size=40,
)


def all_that_differs_is_looked_at(maps: list[PeerMap]) -> None:
    for one in maps:
        for other in maps:
            to_look_at = peer_map.unsettled(one, other)
            if to_look_at is not None:
                assert {key for key in KEYS if one.get(key) != other.get(key)} <= to_look_at


@settings(max_examples=40)
@given(MOVES)
def test_any_sequence_of_moves_ends_as_in_plain_dictionaries(
    moves: list[tuple[str, int, str, str, str]],
) -> None:
    maps: list[PeerMap] = [PeerMap({})]
    plain: list[dict[str, Peer]] = [{}]
    with mock.patch.object(peer_map, "MOST_CHANGED", 3):
        for what, back, mine, others, network in moves:
            at = max(0, len(maps) - 1 - back % 4)
            base, model = maps[at], dict(plain[at])
            if what == "settle":
                differ = {key for key in model if model[key] != plain[-1].get(key)} | (
                    plain[-1].keys() - model
                )
                peer_map.settle(base, maps[-1], differ)
                all_that_differs_is_looked_at(maps)
                continue
            put, gone = [], []
            if what == "remove":
                gone = [mine]
                model.pop(mine, None)
            else:
                if what == "move" and others in model and others != mine:
                    left = tuple(one for one in model[others].allowed_ips if one != network)
                    put.append(Peer(others, left))
                there = model[mine].allowed_ips if mine in model else ()
                put.append(Peer(mine, tuple(sorted({*there, network}))))
                model.update({peer.public_key: peer for peer in put})
            maps.append(derived(base, put, gone))
            plain.append(model)
            assert maps[-1] == model
            assert maps[at] == plain[at]
            for one, expected in zip(maps, plain, strict=True):
                assert peer_map.worked_out(one, "owners", owners, changed_owners) == owners(expected)
        all_that_differs_is_looked_at(maps)


def test_nothing_changed_is_the_map_itself() -> None:
    base = PeerMap({"k": Peer("k", ())})
    assert derived(base, [], []) is base
    assert derived(base, [Peer("l", ())], []).changed == {"l"}
    assert base == {"k": Peer("k", ())}


def line(number: int, network: str = "10.0.0.2/32", traffic: int = 0) -> str:
    return f"{peer_key(str(number))}\t(none)\t(none)\t{network}\t{traffic}\t{traffic}\t{traffic}\toff\n"


def test_a_dump_read_again_differs_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "_LAST", {})
    head = "k\tp\t5\toff\n"
    first = parse_dump(head + line(1) + line(2), "wg-again")["wg-again"].peers
    busy = parse_dump(head + line(2, traffic=7) + line(1, traffic=9), "wg-again")["wg-again"].peers
    assert busy is first
    changed = parse_dump(head + line(2, "10.0.0.9/32") + line(3), "wg-again")["wg-again"].peers
    assert changed == parse_dump(head + line(2, "10.0.0.9/32") + line(3), "wg-other")["wg-other"].peers
    assert isinstance(changed, PeerMap)
    assert changed.root is not changed
    assert sorted(first) == sorted([peer_key("1"), peer_key("2")])
    for wrong in (line(1) + line(1, traffic=3), line(1) + "x\n", "k\tp\t5\toff\n"):
        with pytest.raises(IncompleteDump):
            parse_dump(head + wrong, "wg-again")
    assert parse_dump(head + line(1) + line(2), "wg-again")["wg-again"].peers == first
