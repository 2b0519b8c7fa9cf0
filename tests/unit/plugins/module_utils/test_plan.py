"""target() and plan(): the guards by table, the way there by a simulated node and thousands of generated states."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import plan as steps_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import (
    DEFAULT_MAX_REMOVALS,
    AdoptUnit,
    CreateLink,
    DeleteLink,
    EnableUnit,
    LinkUp,
    RemoveFile,
    RunHooks,
    SetAddresses,
    SetDevice,
    SetMtu,
    SetPeers,
    SetRoutes,
    StartUnit,
    StopUnit,
    WriteFile,
    plan,
    same_peer,
    target,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Hooks,
    InterfaceState,
    Link,
    Peer,
    Route,
    Unit,
)
from tests.unit.plugins.module_utils.generated import (
    FOREIGN_ROUTES,
    by_key,
    interface_states,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
    running,
    wishes,
)
from tests.unit.plugins.module_utils.simulator import DEFAULT_MTU, SimulatedNode

NEW_KEY = private_key(9)
FREE_PORT = 45678


def wanted_of(desired: Desired, actual: InterfaceState) -> InterfaceState:
    return target(desired, actual, public_key_of, lambda: NEW_KEY, lambda: FREE_PORT, lambda: DEFAULT_MTU)


def carried_out(actual: InterfaceState, steps: list[steps_of.Step]) -> InterfaceState:
    node = SimulatedNode(actual)
    for step in steps:
        node.apply(step)
    return node.state()


def some_peers(count: int) -> dict[str, Peer]:
    return by_key(*(peer(number, f"10.0.{number // 250}.{number % 250}/32") for number in range(count)))


# ---- what is asked for, completed by what is there


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


# ---- steps of typical changes


def test_bringing_up_without_systemd() -> None:
    desired = Desired(
        "wg0", private_key=private_key(1), listen_port=51820, addresses=("10.0.0.1/24", "fd00::1/64"), fwmark=7,
        pre_up=("a",), post_up=("b", "c"), pre_down=("d",),
        peers=by_key(peer(1, "10.0.0.2/32"), peer(2, "10.9.0.0/24")),
    )  # fmt: skip
    wanted = wanted_of(desired, InterfaceState())
    assert wanted.file is not None
    assert plan(InterfaceState(), wanted) == [
        WriteFile(wanted.file, None),
        RunHooks("pre_up", ("a",)),
        CreateLink(),
        SetDevice(private_key(1), 51820, 7),
        SetPeers(tuple(desired.peers.values()), added=(key(1), key(2))),  # type: ignore[union-attr]
        SetMtu(DEFAULT_MTU),
        SetAddresses(("10.0.0.1/24", "fd00::1/64")),
        LinkUp(),
        SetRoutes((Route("10.9.0.0/24", "main"),)),
        RunHooks("post_up", ("b", "c")),
    ]


@pytest.mark.parametrize(
    ("unit", "enabled", "expected"),
    [
        (Unit(False, False), True, [EnableUnit(True), StartUnit()]),
        (Unit(True, False), True, [StartUnit()]),
        (Unit(True, True), True, [StopUnit(), StartUnit()]),  # the interface went away under its unit
        (Unit(True, False), False, [EnableUnit(False), StartUnit()]),
    ],
)
def test_bringing_up_by_the_unit(unit: Unit, enabled: bool, expected: list[steps_of.Step]) -> None:
    there = InterfaceState(unit=unit)
    wanted = wanted_of(Desired("wg0", enabled=enabled), there)
    assert plan(there, wanted) == [WriteFile(wanted.file or "", None), *expected]


def test_an_interface_that_is_up_is_taken_into_its_unit() -> None:
    there = dataclasses.replace(running(some_peers(3)), unit=Unit(False, False))
    assert plan(there, wanted_of(Desired("wg0"), there)) == [EnableUnit(True), AdoptUnit()]


def test_going_down_without_systemd() -> None:
    there = running(some_peers(3))
    assert there.config is not None
    hooks = Hooks(pre_up=("a",), post_up=("b",), pre_down=("c",), post_down=("d",))
    there = dataclasses.replace(there, config=dataclasses.replace(there.config, hooks=hooks))
    assert plan(there, wanted_of(Desired("wg0", state="disconnected"), there)) == [
        RunHooks("pre_down", ("c",)),
        DeleteLink(),
        RunHooks("post_down", ("d",)),
        RemoveFile(there.file or ""),
    ]


@pytest.mark.parametrize("text", ["[Interface\n", None], ids=["file broken", "file gone"])
def test_going_down_needs_no_file(text: str | None) -> None:
    there = dataclasses.replace(running(some_peers(3)), unit=Unit(True, True), file=text, config=None)
    steps = plan(there, wanted_of(Desired("wg0", state="absent"), there))
    assert steps == [EnableUnit(False), StopUnit(), DeleteLink(), *([RemoveFile(text)] if text else [])]


def test_a_file_that_others_may_read_is_written_anew() -> None:
    there = dataclasses.replace(running(some_peers(1)), file_is_private=False)
    assert plan(there, wanted_of(Desired("wg0"), there)) == [WriteFile(there.file or "", there.file)]


def test_an_endpoint_is_set_when_another_one_is_asked_for_and_only_then() -> None:
    there = running(by_key(peer(1, "10.0.0.2/32", endpoint="192.0.2.1:1"), peer(2, "10.0.0.3/32")))
    assert there.device is not None
    roamed = {name: one._replace(endpoint="192.0.2.200:9") for name, one in there.device.peers.items()}
    there = dataclasses.replace(there, device=dataclasses.replace(there.device, peers=roamed))

    same = by_key(peer(1, "10.0.0.2/32", endpoint="192.0.2.1:1"), peer(2, "10.0.0.3/32"))
    assert plan(there, wanted_of(Desired("wg0", peers=same), there)) == []

    moved = by_key(
        peer(1, "10.0.0.2/32", endpoint="192.0.2.2:2"), peer(2, "10.0.0.3/32", persistent_keepalive=5)
    )
    (_write, put) = plan(there, wanted_of(Desired("wg0", peers=moved), there))
    assert isinstance(put, SetPeers)
    assert {one.public_key: one.endpoint for one in put.put} == {key(1): "192.0.2.2:2", key(2): None}


@pytest.mark.parametrize("with_file", [True, False], ids=["as in the file", "without a file"])
def test_a_peer_without_any_endpoint_gets_the_one_asked_for(with_file: bool) -> None:
    asked = by_key(peer(1, "10.0.0.2/32", endpoint="192.0.2.1:1"), peer(2, "10.0.0.3/32"))
    there = running(asked)
    assert there.device is not None
    bare = {name: one._replace(endpoint=None) for name, one in there.device.peers.items()}
    there = dataclasses.replace(there, device=dataclasses.replace(there.device, peers=bare))
    if not with_file:
        there = dataclasses.replace(there, file=None, config=None)
    wanted = wanted_of(Desired("wg0", peers=asked), there)
    (put,) = (step for step in plan(there, wanted) if isinstance(step, SetPeers))
    assert put.updated == (key(1),)
    assert {one.public_key: one.endpoint for one in put.put} == {key(1): "192.0.2.1:1"}
    now = carried_out(there, plan(there, wanted))
    assert plan(now, wanted_of(Desired("wg0", peers=asked), now)) == []


def test_routes_of_others_stay() -> None:
    there = running(by_key(peer(1, "10.9.0.0/24"), peer(2, "10.8.0.0/24")), table="auto")
    there = dataclasses.replace(there, routes=there.routes | frozenset(FOREIGN_ROUTES))
    wanted = wanted_of(Desired("wg0", peers=by_key(peer(1, "10.9.0.0/24"))), there)
    assert carried_out(there, plan(there, wanted)).routes == {Route("10.9.0.0/24", "main"), *FOREIGN_ROUTES}


def test_ipv4_routes_come_back_when_the_last_ipv4_address_goes() -> None:
    there = running(
        by_key(peer(1, "10.9.0.0/24", "fd09::/64")), table="auto", addresses=("10.0.0.1/24", "fd00::1/64")
    )
    wanted = wanted_of(Desired("wg0", addresses=("fd00::1/64",)), there)
    steps = plan(there, wanted)
    assert carried_out(there, steps).routes == there.routes
    assert steps[-1] == SetRoutes((Route("10.9.0.0/24", "main"),))


def test_a_kill_while_the_table_changes_leaves_no_routes_behind() -> None:
    there = running(by_key(peer(1, "10.9.0.0/24")), table="auto")
    desired = Desired("wg0", table="off")
    first = plan(there, wanted_of(desired, there))
    for done in range(len(first) + 1):
        left = carried_out(there, first[:done])
        assert carried_out(left, plan(left, wanted_of(desired, left))).routes == frozenset(), (
            f"after {done} steps"
        )


# ---- generated states

# They are cheap, and thousands of them are wanted.
many = settings(max_examples=6 * settings.default.max_examples)


def foreign(state: InterfaceState) -> frozenset[Route]:
    """Routes that nothing of ours can have set."""
    return state.routes & frozenset(FOREIGN_ROUTES)


def assert_reached(wanted: InterfaceState, before: InterfaceState, now: InterfaceState) -> None:
    """That `now` is what was wanted, in all that counts."""
    assert now.file == wanted.file
    assert now.file_is_private
    assert now.unit == wanted.unit
    if wanted.device is None or wanted.link is None:
        assert (now.device, now.link, now.routes) == (None, None, frozenset())
        return
    assert now.device is not None
    assert now.link is not None
    assert dataclasses.replace(now.device, peers={}) == dataclasses.replace(wanted.device, peers={})
    assert now.device.peers.keys() == wanted.device.peers.keys()
    for name, one in wanted.device.peers.items():
        assert same_peer(one, now.device.peers[name])
    assert now.link.up
    assert now.link.addresses == wanted.link.addresses
    assert now.link.mtu == (wanted.link.mtu or (before.link.mtu if before.link else None))
    assert now.routes - foreign(now) == wanted.routes
    assert now.config == wanted.config


def reachable(desired: Desired, actual: InterfaceState) -> InterfaceState:
    """The target; examples that are refused are not counted."""
    try:
        return wanted_of(desired, actual)
    except (Refused, InvalidInput) as error:
        event(f"refused: {type(error).__name__}")
        assume(False)
        raise


@many
@given(interface_states(), wishes())
def test_the_plan_leads_to_the_target_and_then_is_empty(actual: InterfaceState, desired: Desired) -> None:
    wanted = reachable(desired, actual)
    now = carried_out(actual, plan(actual, wanted))
    assert_reached(wanted, actual, now)
    assert plan(now, wanted) == []
    # The same request once more is served by no step at all, so nothing was left to chance the first time.
    assert plan(now, wanted_of(dataclasses.replace(desired, max_removals=0), now)) == []


@many
@given(interface_states(), wishes(states=("present",)))
def test_whoever_does_not_change_is_not_touched(actual: InterfaceState, desired: Desired) -> None:
    wanted = reachable(desired, actual)
    assume(actual.device is not None)
    live, asked = actual.device.peers, wanted.device.peers  # type: ignore[union-attr]
    there = actual.config.peers if actual.config else {}
    for step in plan(actual, wanted):
        assert not isinstance(step, (DeleteLink, CreateLink, StartUnit, StopUnit))
        if isinstance(step, SetRoutes) and foreign(actual):
            assert not foreign(actual) & set(step.remove)
        if not isinstance(step, SetPeers):
            continue
        assert set(step.remove) == live.keys() - asked.keys()
        assert set(step.added) == asked.keys() - live.keys()
        assert set(step.updated) | set(step.added) == {one.public_key for one in step.put}
        for one in step.put:
            if one.public_key not in live:
                continue
            new_endpoint = one.endpoint is not None
            assert new_endpoint or not same_peer(asked[one.public_key], live[one.public_key])
            if new_endpoint:
                bare = live[one.public_key].endpoint is None
                assert bare or there[one.public_key].endpoint != one.endpoint
                assert asked[one.public_key].endpoint == one.endpoint


@many
@given(interface_states(), wishes(), st.data())
def test_a_kill_at_any_point_is_made_good_by_the_next_run(
    actual: InterfaceState, desired: Desired, data: st.DataObject
) -> None:
    wanted = reachable(desired, actual)
    steps = plan(actual, wanted)
    whole = SimulatedNode(actual)
    moments = sum(1 for step in steps for _part in whole.parts(step))
    kill = data.draw(st.integers(0, moments), label="killed after so many parts of steps")
    node = SimulatedNode(actual)
    every_part = (None for step in steps for _part in node.parts(step))
    for _part in itertools.islice(every_part, kill):
        pass
    left = node.state()
    again = wanted_of(desired, left)
    now = carried_out(left, plan(left, again))
    assert_reached(again, left, now)
    if again.device is not None and wanted.device is not None:
        assert again.device.private_key == wanted.device.private_key
    assert plan(now, again) == []


@many
@given(interface_states(), wishes(), st.data())
def test_undoing_from_any_point_restores_what_was_there(
    actual: InterfaceState, desired: Desired, data: st.DataObject
) -> None:
    wanted = reachable(desired, actual)
    node = SimulatedNode(actual)
    steps = plan(actual, wanted)
    for step in steps[: data.draw(st.integers(0, len(steps)), label="steps done")]:
        node.apply(step)
    for _attempt in range(2):  # as converge does
        for step in plan(node.state(), actual):
            node.apply(step)
    now = node.state()
    assert plan(now, actual) == []
    assert now.file == actual.file
    assert now.routes == actual.routes
    assert (now.device is None) == (actual.device is None)
    if actual.device is not None and now.device is not None:
        assert dataclasses.replace(now.device, peers={}) == dataclasses.replace(actual.device, peers={})
        assert {name: one[:4] for name, one in now.device.peers.items()} == {
            name: one[:4] for name, one in actual.device.peers.items()
        }
        assert now.link.addresses == actual.link.addresses  # type: ignore[union-attr]
        assert now.link.mtu == actual.link.mtu  # type: ignore[union-attr]
    if actual.unit is not None and now.unit is not None:
        assert now.unit.enabled == actual.unit.enabled


@many
@given(interface_states(), wishes(states=("present",)))
def test_the_target_holds_no_more_and_no_less_than_was_asked_for(
    actual: InterfaceState, desired: Desired
) -> None:
    wanted = reachable(desired, actual)
    device, config = wanted.device, wanted.config
    assert isinstance(config, Config)
    assert device is not None
    assert device.peers == config.peers
    if desired.peers is not None:
        assert desired.peers.items() <= device.peers.items()
        if desired.purge_peers:
            assert device.peers == desired.peers
    for name in ("private_key", "listen_port", "fwmark"):
        if getattr(desired, name) is not None:
            assert getattr(device, name) == getattr(config, name) == getattr(desired, name)
    assert wanted.routes == wanted_routes(config.table, config.addresses, config.peers.values())
    assert device.public_key not in device.peers
