"""Removals from begin to end: everything of a customer goes, and nothing of anybody else."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    ApiKey,
    AuditEntry,
    AuthToken,
    Base,
    Instance,
    License,
    Operation,
    Peer,
    PeerGroup,
    PeerGroupInstance,
    PeerGroupPeer,
    PeerInvite,
    PeerStatus,
    Teardown,
    User,
    UserAcl,
    UserSession,
    new_id,
    now,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

REST = ("node", "node_check", "operation", "operation_event", "audit_entry", "teardown")


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice and Bob are on nl1, each with two devices and a row in every table that customers have."""
    controller.play(
        "provision", instances=[ALICE, BOB], node=NL, peers=[{"name": "phone"}, {"name": "tablet"}]
    )
    with controller.registry.write() as session:
        friends = PeerGroup(name="friends")
        session.add_all([friends, ApiKey(name="billing", key_hash="h", scopes=["billing"])])
        session.flush()
        for instance in session.scalars(select(Instance)):
            peers = session.scalars(select(Peer).where(Peer.instance_id == instance.id)).all()
            user = session.scalars(select(User).where(User.email == instance.name)).one()
            session.add_all(
                [
                    *(PeerStatus(peer_id=peer.id, received_bytes=1) for peer in peers),
                    *(PeerInvite(peer_id=peer.id, token_hash=new_id(), expires_at=now()) for peer in peers),
                    *(PeerGroupPeer(group_id=friends.id, peer_id=peer.id) for peer in peers),
                    PeerGroupInstance(group_id=friends.id, instance_id=instance.id),
                    *(AuthToken(user_id=user.id, token_hash=new_id()) for _ in range(2)),
                    *(UserSession(user_id=user.id, key_hash=new_id()) for _ in range(2)),
                    License(email=instance.name, is_active=False),
                ]
            )
    controller.fleet.calls.clear()
    return controller


def everything(controller: Controller) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with controller.registry.read() as session:
        return {
            table.name: sorted(map(tuple, session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
        }


def report(result: dict[str, Any]) -> tuple[str, int, list[str], list[str]]:
    assert set(result["results"]) == {"instance_identifier", "removed_items", "errors"}
    assert result["results"]["instance_identifier"] == result["instance"]
    assert result["message"] == f"Removal completed for {result['instance']}"
    types = [item["type"] for item in result["results"]["removed_items"]]
    return result["status"], result["code"], types, result["results"]["errors"]


def not_found(name: str) -> list[str]:
    return [
        f"WireGuard instance not found: {name}",
        f"Peer group not found: {name}_group",
        f"User not found: {name}",
    ]


ALL_TYPES = ["wireguard_instance", "peer_group", "user_acl", "user", "wireguard_configs"]


def test_everything_of_the_customer_goes_and_is_reported_in_order(served: Controller) -> None:
    instance = served.instance(ALICE)
    ids = {user.email: user.id for user in served.rows(User)}
    acls = {acl.user_id: acl.id for acl in served.rows(UserAcl)}
    result = served.one("remove", instance=ALICE)
    assert {key: result[key] for key in ("status", "message", "results")} == {
        "status": "success",
        "message": f"Removal completed for {ALICE}",
        "results": {
            "instance_identifier": ALICE,
            "removed_items": [
                {"type": "wireguard_instance", "identifier": instance.uuid, "peers_removed": 2},
                {"type": "peer_group", "identifier": f"{ALICE}_group"},
                {"type": "user_acl", "identifier": acls[ids[ALICE]]},
                {"type": "user", "identifier": ALICE},
                {"type": "wireguard_configs", "identifier": "regenerated"},
            ],
            "errors": [],
        },
    }
    assert (result["code"], result["changed"], result["pending"]) == (200, True, False)
    assert served.fleet.calls == [(NL, [(instance.interface, "absent")])]
    assert [interface for _, interface, _ in served.fleet.everything()] == [served.instance(BOB).interface]
    (operation,) = [one for one in served.rows(Operation) if one.kind == "remove"]
    assert (operation.state, operation.result) == ("succeeded", result)
    (entry,) = [one for one in served.rows(AuditEntry) if one.action == "remove"]
    assert (entry.subject, entry.result, entry.operation_id) == (ALICE, "success", operation.id)
    assert_all_is_well(served.registry, served.fleet)


def test_no_row_stays_and_none_of_anybody_elses_goes(served: Controller) -> None:
    before = everything(served)
    alice = [ALICE, served.instance(ALICE).id]
    alice += [one.id for one in served.rows(User) if one.email == ALICE]
    alice += [one.id for one in served.rows(Peer) if one.instance_id == alice[1]]
    alice += [one.id for one in served.rows(PeerGroup) if one.name.startswith(ALICE)]

    def hers(table: str, row: tuple[Any, ...]) -> bool:
        columns = [column.name for column in Base.metadata.tables[table].columns]
        if table in REST:
            return False
        owners = {"id", "instance_id", "peer_id", "user_id", "group_id", "email", "name"}
        own_id = {"instance", "peer", "peer_group", "user"}
        return any(
            value in alice
            for column, value in zip(columns, row, strict=True)
            if column in owners and (column != "id" or table in own_id)
        )

    mine = {table: [row for row in some if hers(table, row)] for table, some in before.items()}
    assert {table for table, some in mine.items() if some} == before.keys() - {
        *REST,
        "api_key",
        "idempotency_key",
    }
    served.play("remove", instance=ALICE)
    after = everything(served)
    for table, some in before.items():
        if table not in REST:
            assert after[table] == [row for row in some if row not in mine[table]], table
    assert after["node"] == [row[:-3] + after["node"][index][-3:] for index, row in enumerate(before["node"])]
    assert after["teardown"] == []


def test_a_repeated_removal_finds_nothing(served: Controller) -> None:
    served.play("remove", instance=ALICE)
    served.fleet.calls.clear()
    result = served.one("remove", instance=ALICE)
    assert report(result) == ("partial_success", 207, [], not_found(ALICE))
    assert (result["changed"], result["pending"], served.fleet.calls) == (False, False, [])
    assert [one.state for one in served.rows(Operation) if one.kind == "remove"] == ["succeeded"] * 2


def test_who_was_never_there_is_not_found(served: Controller) -> None:
    assert report(served.one("remove", instance="nobody@example.com")) == (
        "partial_success", 207, [], not_found("nobody@example.com"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gone", "types", "error"),
    [
        ([PeerGroupInstance, PeerGroup], ["wireguard_instance", "user_acl", "user", "wireguard_configs"],
         f"Peer group not found: {ALICE}_group"),
        ([UserAcl], ["wireguard_instance", "peer_group", "user", "wireguard_configs"], f"User ACL not found: {ALICE}"),
        ([UserAcl, User], ["wireguard_instance", "peer_group", "wireguard_configs"], f"User not found: {ALICE}"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_and_the_rest_removed(
    controller: Controller, gone: list[type[Base]], types: list[str], error: str
) -> None:
    controller.play("provision", instance=ALICE)
    with controller.registry.write() as session:
        for model in gone:
            session.execute(delete(model))
    assert report(controller.one("remove", instance=ALICE)) == ("partial_success", 207, types, [error])
    for model in (Instance, PeerGroup, User, UserAcl, License):
        assert controller.rows(model) == []


def test_an_account_without_an_instance_goes_too(controller: Controller) -> None:
    with controller.registry.write() as session:
        user = User(email=ALICE)
        session.add_all([user, PeerGroup(name=f"{ALICE}_group"), License(email=ALICE)])
        session.flush()
        session.add(UserAcl(user_id=user.id))
    assert report(controller.one("remove", instance=ALICE)) == (
        "partial_success", 207, ["peer_group", "user_acl", "user"], [f"WireGuard instance not found: {ALICE}"],
    )  # fmt: skip
    assert controller.rows(User) == []
    assert controller.rows(License) == []


def test_who_is_disconnected_is_removed_like_anybody(served: Controller) -> None:
    served.play("disconnect", instance=ALICE)
    assert report(served.one("remove", instance=ALICE)) == ("success", 200, ALL_TYPES, [])
    assert_all_is_well(served.registry, served.fleet)


def test_many_take_one_call_for_each_node(served: Controller) -> None:
    served.play("provision", instance="carol@example.com", node=DE)
    served.fleet.calls.clear()
    names = [ALICE, "nobody@example.com", "carol@example.com", BOB]
    results = served.play("remove", instances=names)
    assert [one["code"] for one in results["operations"]] == [200, 207, 200, 200]
    assert (results["status"], results["changed"]) == ("partial_success", True)
    assert sorted((node, len(jobs)) for node, jobs in served.fleet.calls) == [(DE, 1), (NL, 2)]
    assert served.rows(Instance) == []
    assert_all_is_well(served.registry, served.fleet)


def test_a_plan_changes_nothing(served: Controller) -> None:
    before = everything(served)
    result = served.one("remove", instance=ALICE, check=True)
    assert result["status"] == "planned"
    assert [item["type"] for item in result["results"]["removed_items"]] == ALL_TYPES
    assert everything(served) == before
    assert (served.fleet.calls, served.up(ALICE)) == ([], [NL])


# ---- nodes that fail


@pytest.mark.parametrize("weather", [Weather.UNREACHABLE, Weather.LOST, Weather.CRASHES, Weather.REFUSES])
def test_a_node_that_fails_is_reported_and_tried_again(served: Controller, weather: Weather) -> None:
    served.fleet.set_weather(weather, NL)
    result = served.one("remove", instance=ALICE)
    status, code, types, errors = report(result)
    assert (status, code, types, result["pending"]) == ("partial_success", 207, ALL_TYPES[:-1], True)
    (error,) = errors
    assert error.startswith(f"node {NL}")
    assert error.endswith("; it is taken down by the node's next reconcile")
    assert [one.name for one in served.rows(Instance)] == [BOB]
    (row,) = served.rows(Teardown)
    assert (row.reason, row.instance_name, row.listen_port, row.attempts) == ("removed", ALICE, 51820, 1)
    assert problems(served.registry, served.fleet) == []
    served.fleet.set_weather(Weather.FINE)
    again = served.one("remove", instance=ALICE)
    assert report(again) == ("success", 200, ALL_TYPES, [])
    assert again["operation_id"] == result["operation_id"]
    assert_all_is_well(served.registry, served.fleet)
    assert report(served.one("remove", instance=ALICE))[:2] == ("partial_success", 207)


def test_a_limit_removes_nothing_elsewhere(served: Controller) -> None:
    result = served.one("remove", instance=ALICE, limit=[DE, FR])
    assert report(result)[:2] == ("partial_success", 207)
    assert f"node {NL} was left out of this run" in report(result)[3][0]
    assert served.fleet.calls == []
    served.play("remove", instance=ALICE)
    assert_all_is_well(served.registry, served.fleet)


def test_nobody_gets_what_is_still_up(served: Controller) -> None:
    """A new customer of the same name is another one: another interface, port and subnet."""
    old = served.instance(ALICE)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("remove", instance=ALICE)
    served.fleet.set_weather(Weather.FINE)
    served.play("provision", instance="carol@example.com", node=NL)
    carol = served.instance("carol@example.com")
    assert carol.listen_port not in (old.listen_port, served.instance(BOB).listen_port)
    assert carol.subnet != old.subnet
    assert problems(served.registry, served.fleet) == []
    result = served.one("provision", instance=ALICE, node=NL)
    assert result["status"] == "success"
    new = served.instance(ALICE)
    assert new.id > old.id
    assert (new.listen_port, new.subnet) != (old.listen_port, old.subnet)
    # The old one was taken down along with it.
    assert_all_is_well(served.registry, served.fleet)


def test_what_a_transfer_has_left_behind_goes_too(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("transfer", instance=ALICE, node=DE)
    result = served.one("remove", instance=ALICE)
    assert report(result)[:2] == ("partial_success", 207)
    assert [row.node_id for row in served.rows(Teardown)] == [served.instance(BOB).node_id]
    served.fleet.set_weather(Weather.FINE)
    assert report(served.one("remove", instance=ALICE))[:2] == ("success", 200)
    assert_all_is_well(served.registry, served.fleet)
