"""plan(): the steps of typical changes."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import steps as steps_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import plan, route_changes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Hooks,
    InterfaceState,
    Route,
    Unit,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
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
)
from tests.unit.plugins.module_utils.generated import (
    FOREIGN_ROUTES,
    by_key,
    key,
    peer,
    private_key,
    running,
)
from tests.unit.plugins.module_utils.planned import carried_out, some_peers, wanted_of
from tests.unit.plugins.module_utils.simulator import DEFAULT_MTU


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


def test_routes_of_the_file_go_where_the_interface_could_not_be_read() -> None:
    """They stand there for the peers of the file, and nobody knows of others."""
    there = running(by_key(peer(1, "10.9.0.0/24"), peer(2, "10.8.0.0/24")), table="auto")
    there = dataclasses.replace(there, device=None, routes=there.routes | frozenset(FOREIGN_ROUTES))
    wanted = running(by_key(peer(1, "10.9.0.0/24"), peer(3, "10.7.0.0/24")), table="auto")
    assert route_changes(there, wanted) == SetRoutes(
        (Route("10.7.0.0/24", "main"),), (Route("10.8.0.0/24", "main"),)
    )


def test_an_interface_is_not_brought_up_by_halves() -> None:
    there = running(some_peers(1))
    with pytest.raises(AssertionError, match="has a device and a link"):
        plan(there, dataclasses.replace(there, link=None))
