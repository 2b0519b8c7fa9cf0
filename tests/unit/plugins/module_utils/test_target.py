"""target(): what is asked for, completed by what is there, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import (
    DEFAULT_MAX_REMOVALS,
    plan,
    target,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    InterfaceState,
    Link,
    Peer,
    Route,
    Unit,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import SetMtu, SetPeers, WriteFile
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
    running,
)
from tests.unit.plugins.module_utils.planned import FREE_PORT, NEW_KEY, carried_out, some_peers, wanted_of
from tests.unit.plugins.module_utils.simulator import DEFAULT_MTU


def test_nothing_asked_for_keeps_all() -> None:
    there = running(by_key(peer(1, "10.0.0.2/32", preshared_key=preshared_key(1), persistent_keepalive=25)))
    assert plan(there, wanted_of(Desired("wg0"), there)) == []


def test_a_file_that_lost_a_line_takes_nothing_from_what_runs() -> None:
    there = running(by_key(peer(1, "10.0.0.2/32")), addresses=["10.0.0.1/24", "10.1.0.1/24"])
    assert there.config is not None
    edited = replace(there, file="edited", config=replace(there.config, addresses=("10.0.0.1/24",)))
    wanted = wanted_of(Desired("wg0"), edited)
    assert wanted.config == there.config
    assert [type(step) for step in plan(edited, wanted)] == [WriteFile]


@pytest.mark.parametrize("table", ["auto", "off"])
def test_without_a_file_what_runs_tells_what_it_was(table: str) -> None:
    there = running(by_key(peer(1, "10.50.0.0/24")), table=table, addresses=["10.0.0.1/24"])
    assert there.link is not None
    link = Link(True, 1300, there.link.addresses | {"fe80::5/64"})
    alone = replace(there, file=None, config=None, link=link)
    wanted = wanted_of(Desired("wg0"), alone)
    assert [type(step) for step in plan(alone, wanted)] == [WriteFile]
    assert wanted.config is not None
    assert (wanted.config.table, wanted.config.mtu, wanted.config.addresses) == (
        table,
        1300,
        ("10.0.0.1/24",),
    )


def test_from_nothing_values_are_chosen() -> None:
    wanted = wanted_of(Desired("wg0"), InterfaceState())
    assert wanted.device is not None
    assert wanted.device.private_key == NEW_KEY
    assert wanted.device.listen_port == FREE_PORT
    assert wanted.link == Link(True, DEFAULT_MTU, frozenset())
    assert wanted.config is not None
    assert wanted.config.mtu is None  # the file leaves it to each start


@pytest.mark.parametrize("live", [True, False], ids=["from the interface", "from the file"])
def test_key_and_port_are_kept_when_not_given(live: bool) -> None:
    there = running(some_peers(2))
    if not live:
        there = dataclasses.replace(there, device=None, link=None)
    wanted = wanted_of(Desired("wg0", addresses=("10.0.0.1/24",)), there)
    assert wanted.device is not None
    assert (wanted.device.private_key, wanted.device.listen_port) == (private_key(1), 51820)
    assert wanted.device.peers == some_peers(2)


def test_the_interface_is_believed_before_the_file() -> None:
    there = running(some_peers(1))
    assert there.config is not None
    there = dataclasses.replace(
        there, config=dataclasses.replace(there.config, private_key=private_key(5), listen_port=5)
    )
    wanted = wanted_of(Desired("wg0"), there)
    assert wanted.device is not None
    assert (wanted.device.private_key, wanted.device.listen_port) == (private_key(1), 51820)


def test_the_learned_endpoint_of_a_device_is_not_written_into_the_file() -> None:
    there = running(some_peers(1))
    assert there.device is not None
    live = {name: one._replace(endpoint="192.0.2.5:4444") for name, one in there.device.peers.items()}
    there = dataclasses.replace(there, device=dataclasses.replace(there.device, peers=live))
    wanted = wanted_of(Desired("wg0", mtu=1400), there)
    assert wanted.file is not None
    assert "Endpoint" not in wanted.file
    assert plan(there, wanted) == [WriteFile(wanted.file, there.file), SetMtu(1400)]


@pytest.mark.parametrize("state", ["disconnected", "absent"])
@pytest.mark.parametrize("unit", [None, Unit(True, True), Unit(False, False)])
def test_down_asks_for_nothing_at_all(state: str, unit: Unit | None) -> None:
    there = dataclasses.replace(running(some_peers(50)), unit=unit)
    assert wanted_of(Desired("wg0", state=state), there) == InterfaceState(unit=unit and Unit(False, False))


# ---- guards


def test_a_broken_file_without_interface_and_without_key_is_refused() -> None:
    broken = InterfaceState(file=f"[Interface]\nPrivatKey = {private_key(1)}\n")
    with pytest.raises(
        Refused, match=r"^/etc/wireguard/wg0\.conf cannot be understood .* set private_key"
    ) as caught:
        wanted_of(Desired("wg0", peers={}), broken)
    assert private_key(1) not in str(caught.value)


@pytest.mark.parametrize(
    ("desired", "live"),
    [(Desired("wg0", private_key=private_key(2)), False), (Desired("wg0"), True)],
    ids=["key given", "key on the interface"],
)
def test_a_broken_file_is_replaced_when_the_key_is_known(desired: Desired, live: bool) -> None:
    there = dataclasses.replace(running(), file="[Interface\n", config=None)
    if not live:
        there = dataclasses.replace(there, device=None, link=None)
    wanted = wanted_of(desired, there)
    assert wanted.device is not None
    assert wanted.device.private_key == (desired.private_key or private_key(1))
    assert isinstance(plan(there, wanted)[0], WriteFile)


@pytest.mark.parametrize(
    ("live", "kept", "limit", "refused"),
    [
        (DEFAULT_MAX_REMOVALS + 1, 1, None, False),
        (DEFAULT_MAX_REMOVALS + 2, 1, None, True),
        (1, 0, None, True),  # an empty list is never taken at its word by default
        (1, 0, 0, True),
        (1, 0, 1, False),
        (0, 0, None, False),
        (5, 3, 1, True),
        (5, 3, 2, False),
        (500, 1, 498, True),
        (500, 1, 499, False),
    ],
)
@pytest.mark.parametrize("where", ["interface and file", "interface", "file"])
def test_removals_are_limited(live: int, kept: int, limit: int | None, refused: bool, where: str) -> None:
    there = running(some_peers(live))
    if where == "interface":
        there = dataclasses.replace(there, file=None, config=None)
    elif where == "file":
        there = dataclasses.replace(there, device=None, link=None)
    desired = Desired("wg0", peers=some_peers(kept), max_removals=limit)
    if not refused:
        assert wanted_of(desired, there).device.peers == some_peers(kept)  # type: ignore[union-attr]
        return
    gone = live - kept
    with pytest.raises(Refused, match=f"^{gone} of {live} peers would be removed from wg0, ") as caught:
        wanted_of(desired, there)
    assert f"set max_removals to {gone} or more" in str(caught.value)


def test_peers_that_only_the_file_has_count_as_removals() -> None:
    there = running(some_peers(30))
    assert there.device is not None
    there = dataclasses.replace(there, device=dataclasses.replace(there.device, peers=some_peers(2)))
    with pytest.raises(Refused, match=r"^28 of 30 peers"):
        wanted_of(Desired("wg0", peers=some_peers(2)), there)


def test_without_purge_nothing_is_removed() -> None:
    there = running(some_peers(30))
    wanted = wanted_of(Desired("wg0", peers=by_key(peer(99, "10.9.9.9/32")), purge_peers=False), there)
    (write, put) = plan(there, wanted)
    assert isinstance(write, WriteFile)
    assert put == SetPeers((peer(99, "10.9.9.9/32"),), added=(key(99),))


@pytest.mark.parametrize("net", ["10.0.0.1/32", "10.0.0.0/30"])
def test_without_purge_an_overlap_with_a_peer_on_the_node_is_refused(net: str) -> None:
    there = running(some_peers(5))
    with pytest.raises(InvalidInput, match="allowed_ips of two peers overlap") as caught:
        wanted_of(Desired("wg0", peers=by_key(peer(99, net)), purge_peers=False), there)
    assert caught.value.field.startswith("peers ")
    assert len(str(caught.value)) < 300


def test_without_purge_a_network_may_move_when_both_peers_are_named() -> None:
    there = running(some_peers(2))
    swapped = by_key(peer(0, "10.0.0.1/32"), peer(1, "10.0.0.0/32"))
    wanted = wanted_of(Desired("wg0", peers=swapped, purge_peers=False), there)
    assert carried_out(there, plan(there, wanted)).device.peers == swapped  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "there", [InterfaceState(), running(some_peers(2))], ids=["nothing there", "running"]
)
def test_the_own_public_key_as_a_peer_is_refused(there: InterfaceState) -> None:
    own = public_key_of(private_key(1))
    desired = Desired(
        "wg0", private_key=private_key(1), peers={own: Peer(own, ("10.0.0.9/32",))}, max_removals=9
    )
    with pytest.raises(InvalidInput, match="the interface's own public key") as caught:
        wanted_of(desired, there)
    assert caught.value.field == "peers"
    assert private_key(1) not in str(caught.value)


def test_a_new_key_whose_public_key_is_a_peer_is_refused() -> None:
    own = public_key_of(private_key(2))
    there = running({own: Peer(own, ("10.0.0.9/32",))})
    with pytest.raises(InvalidInput, match="own public key"):
        wanted_of(Desired("wg0", private_key=private_key(2)), there)


OWN, OTHER = public_key_of(private_key(1)), public_key_of(private_key(2))


@pytest.mark.parametrize(
    ("there", "desired", "field"),
    [
        (running(), Desired("wg0", private_key=private_key(1), public_key=OTHER), "public_key"),
        (running(), Desired("wg0", private_key=private_key(2), public_key=OWN), "public_key"),
        (InterfaceState(), Desired("wg0", private_key=private_key(1), public_key=OTHER), "public_key"),
        (InterfaceState(), Desired("wg0", public_key=OWN), "private_key"),
    ],
)
def test_a_public_key_belongs_to_the_private_key(there: InterfaceState, desired: Desired, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        wanted_of(desired, there)
    assert caught.value.field == field
    assert private_key(1) not in str(caught.value)


@pytest.mark.parametrize("private", [None, private_key(1)])
def test_the_public_key_of_what_runs_is_not_worked_out_again(private: str | None) -> None:
    def no_process(_private: str) -> str:
        raise AssertionError("wg pubkey was run")

    there = running()
    desired = Desired("wg0", private_key=private, public_key=OWN)
    wanted = target(desired, there, no_process, lambda: NEW_KEY, lambda: FREE_PORT, lambda: DEFAULT_MTU)
    assert plan(there, wanted) == []


def test_without_wg_the_keys_are_not_compared() -> None:
    """As in check mode on a node that is still to be prepared."""
    desired = Desired("wg0", private_key=private_key(1), public_key=OTHER)
    wanted = target(
        desired,
        InterfaceState(),
        lambda _private: "",
        lambda: NEW_KEY,
        lambda: FREE_PORT,
        lambda: DEFAULT_MTU,
    )
    assert wanted.device is not None


@pytest.mark.parametrize("net", ["0.0.0.0/0", "::/0"])
@pytest.mark.parametrize("table", [None, "auto", "off", "1234"])
def test_a_default_route_needs_a_table_of_its_own(net: str, table: str | None) -> None:
    desired = Desired("wg0", table=table, peers=by_key(peer(1, net)))
    if table in ("off", "1234"):
        expected = frozenset() if table == "off" else {Route(net, "1234")}
        assert wanted_of(desired, InterfaceState()).routes == expected
        return
    with pytest.raises(
        Refused, match=f"^allowed_ips {net} with table auto .* set table to off or to a number"
    ):
        wanted_of(desired, InterfaceState())


def test_an_mtu_too_low_for_ipv6_is_refused() -> None:
    asked = Desired("wg0", private_key=private_key(1), mtu=1279, addresses=("10.0.0.1/24", "fd00::1/64"))
    with pytest.raises(InvalidInput, match=r"^mtu: 1279 is too low for the IPv6 addresses"):
        wanted_of(asked, InterfaceState())
    for fine in (replace(asked, mtu=1280), replace(asked, addresses=("10.0.0.1/24",))):
        assert wanted_of(fine, InterfaceState()).config
