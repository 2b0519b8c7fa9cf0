"""Operations as rows: who holds them, what comes after a run that was killed, what is kept of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import operations, stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    NotFound,
    RegistryError,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Node,
    Operation,
    Teardown,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import LEASE, process_token
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import read_requests
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("provision", {}),
    ("disconnect", {}),
    ("transfer", {"node": DE}),
    ("remove", {}),
]


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice and Bob are on nl1."""
    controller.play("provision", instances=[ALICE, BOB], node=NL)
    controller.fleet.calls.clear()
    return controller


def a_run(owner: str | None = None) -> operations.Run:
    """A run of this process, that may touch all nodes."""
    return operations.Run(
        id=new_id(),
        owner=process_token(1) if owner is None else owner,
        actor="tester",
        hosts=frozenset([NL, DE, FR]),
    )


def begin(session: Session, kind: str, run: operations.Run, **variables: Any) -> list[Operation]:
    return operations.begin(session, kind, read_requests(kind, variables), run)


def of_kind(controller: Controller, kind: str) -> list[Operation]:
    return sorted(
        (one for one in controller.rows(Operation) if one.kind == kind), key=lambda one: one.created_at
    )


# ---- who holds an instance


@pytest.mark.parametrize(("first", "more"), KINDS)
@pytest.mark.parametrize(("second", "more_too"), KINDS)
def test_one_run_at_a_time_is_at_work_on_an_instance(
    served: Controller, first: str, more: dict[str, Any], second: str, more_too: dict[str, Any]
) -> None:
    with served.registry.write() as session:
        (held,) = begin(session, first, a_run(), instance=ALICE, **more)
    before = served.rows(Operation)
    # A removed instance is not found any more, whoever removes it.
    error = NotFound if first == "remove" and second in ("disconnect", "transfer") else Busy
    with pytest.raises(error) as caught:
        served.play(second, instances=[BOB, ALICE], **more_too)
    if error is Busy:
        assert str(caught.value).startswith(f"{ALICE} is busy: {first} {held.id} is at work on it since ")
        assert str(caught.value).endswith(" UTC; try again later")
    assert [one.id for one in served.rows(Operation)] == [one.id for one in before]
    assert served.fleet.calls == []
    # Bob is free, and Alice is when that run has ended.
    served.play("disconnect", instance=BOB)
    with served.registry.write() as session:
        session.execute(update(Operation).where(Operation.id == held.id).values(owner=token_of_the_dead()))
    if error is Busy:
        served.play(second, instance=ALICE, **more_too)
        assert problems(served.registry, served.fleet) == []


def test_the_database_itself_lets_one_run_hold_an_instance(served: Controller) -> None:
    with served.registry.write() as session:
        session.add_all(Operation(kind="remove", instance_name=ALICE, state="pending") for _ in range(2))
    with pytest.raises(IntegrityError), served.registry.write() as session:
        session.add_all(Operation(kind="remove", instance_name=ALICE, state="running") for _ in range(2))


def test_a_run_elsewhere_is_believed_until_its_lease_ends(served: Controller) -> None:
    with served.registry.write() as session:
        (held,) = begin(session, "disconnect", a_run(owner='{"machine": "other", "pid": 1}'), instance=ALICE)
        assert now() < (held.lease_until or now()) <= now() + LEASE
    with pytest.raises(Busy):
        served.play("remove", instance=ALICE)
    with served.registry.write() as session:
        session.get_one(Operation, held.id).lease_until = now() - timedelta(seconds=1)
    served.play("remove", instance=ALICE)
    assert [one.state for one in of_kind(served, "disconnect")] == ["canceled"]


def test_a_run_that_goes_on_keeps_its_lease(served: Controller) -> None:
    run = a_run()
    with served.registry.write() as session:
        (held,) = begin(session, "disconnect", run, instance=ALICE)
        held.lease_until = now()
    with served.registry.write() as session:
        held = session.get_one(Operation, held.id)
        node = require_node(session, NL)
        operations.settle(session, [held], "apply", node, {held.id: stages.Outcome(stages.DONE)})
        assert held.lease_until is not None
        assert held.lease_until > now() + LEASE / 2
        assert node.last_seen is not None


# ---- what comes after


def test_the_same_again_takes_up_what_was_left(served: Controller) -> None:
    for points in (3, 6, 9):
        assert served.killed(points, "transfer", instance=ALICE, node=DE)
    result = served.one("transfer", instance=ALICE, node=DE)
    (operation,) = of_kind(served, "transfer")
    assert (operation.id, operation.state, operation.attempts) == (result["operation_id"], "succeeded", 4)
    assert_all_is_well(served.registry, served.fleet)


@pytest.mark.parametrize(("kind", "more"), [*KINDS[:2], KINDS[3], ("transfer", {"node": FR})])
def test_something_else_takes_its_place(served: Controller, kind: str, more: dict[str, Any]) -> None:
    served.fleet.set_weather(Weather.LOST, DE)
    assert served.killed(9, "transfer", instance=ALICE, node=DE)
    served.fleet.set_weather(Weather.FINE)
    served.play(kind, instance=ALICE, **more)
    old = of_kind(served, "transfer")[0]
    assert (old.state, old.error) == ("canceled", f"superseded by a later {kind}")
    assert (old.owner, old.lease_until) == (None, None)
    assert old.finished_at is not None
    assert_all_is_well(served.registry, served.fleet)


def test_a_run_that_is_told_late_changes_nothing(served: Controller) -> None:
    """Its playbook was killed, but a worker of it came back from a node when another run had begun."""
    run = a_run(owner=token_of_the_dead())
    with served.registry.write() as session:
        (old,) = begin(session, "transfer", run, instance=ALICE, node=DE)
    served.play("disconnect", instance=ALICE)
    with served.registry.write() as session:
        held = operations.of_run(session, run.id)
        assert held == []
        operations.settle(
            session, held, "arrive", require_node(session, DE), {old.id: stages.Outcome(stages.DONE)}
        )
        assert operations.finish(session, held, run) == []
    assert_all_is_well(served.registry, served.fleet)


def test_nothing_is_kept_of_a_run_that_may_not_begin(served: Controller) -> None:
    before = served.rows(Operation)
    for asked in (
        ("transfer", {"instances": [BOB, ALICE], "node": "es1.example.com"}),
        ("disconnect", {"instances": [BOB, "nobody@example.com"]}),
        ("provision", {"instances": [{"instance": BOB}, {"instance": ALICE, "node": DE}]}),
    ):
        with pytest.raises(RegistryError):
            served.play(asked[0], **asked[1])
    assert [one.id for one in served.rows(Operation)] == [one.id for one in before]
    assert_all_is_well(served.registry, served.fleet)


# ---- what is kept


def test_who_asked_and_who_ended_it(served: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPNFLEET_ACTOR", "billing")
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", instance=ALICE)
    monkeypatch.setenv("VPNFLEET_ACTOR", "{{ ops }}")
    served.fleet.set_weather(Weather.FINE)
    served.play("disconnect", instance=ALICE)
    (operation,) = of_kind(served, "disconnect")
    assert operation.requested_by == "billing"
    entries = [one for one in served.rows(AuditEntry) if one.action == "disconnect"]
    assert [(one.actor, one.result, one.details["code"]) for one in sorted(entries, key=lambda one: one.id)] == [
        ("billing", "error", 500), ("{{ ops }}", "success", 200),
    ]  # fmt: skip


def test_the_audit_outlives_the_customer(served: Controller) -> None:
    served.play("remove", instance=ALICE)
    assert [one.action for one in served.rows(AuditEntry) if one.subject == ALICE] == ["provision", "remove"]


def test_the_nodes_of_each_stage_are_known_from_the_beginning(served: Controller) -> None:
    served.play("transfer", instance=BOB, node=FR)
    with served.registry.write(keep=False) as session:
        held = begin(session, "transfer", a_run(), instances=[ALICE, BOB], node=DE)
        assert operations.stage_nodes(held) == {"arrive": [DE], "leave": [FR, NL]}
    with served.registry.write(keep=False) as session:
        held = begin(session, "remove", a_run(), instances=[ALICE, BOB, "nobody@example.com"])
        assert operations.stage_nodes(held) == {"apply": [FR, NL]}


def test_a_node_that_has_nothing_to_do_is_not_called(served: Controller) -> None:
    with served.registry.write(keep=False) as session:
        held = begin(session, "disconnect", a_run(), instance=ALICE)
        nodes = {node.name: node for node in session.scalars(select(Node))}
        assert [len(operations.jobs(session, held, "apply", nodes[name])) for name in (NL, DE)] == [1, 0]
        assert operations.jobs(session, held, "arrive", nodes[NL]) == []


def test_what_is_left_on_other_nodes_does_not_hold_up_a_transfer(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("transfer", instance=ALICE, node=DE)
    result = served.one("transfer", instance=ALICE, node=FR)
    assert (result["status"], result["pending"]) == ("success", True)
    assert served.up(ALICE) == [FR, NL]
    assert [row.reason for row in served.rows(Teardown)] == ["transferred"]
    served.fleet.set_weather(Weather.FINE)
    served.play("transfer", instance=ALICE, node=FR)
    assert_all_is_well(served.registry, served.fleet)


def test_a_transfer_needs_all_its_nodes(served: Controller) -> None:
    with pytest.raises(Conflict, match="a transfer needs both nodes"):
        served.play("transfer", instance=ALICE, node=DE, limit=[DE])
    # It does not need those of nobody's concern.
    assert served.one("transfer", instance=ALICE, node=DE, limit=[NL, DE])["status"] == "success"


def test_what_is_refused_is_published_and_on_record(served: Controller) -> None:
    """The report is what fails, as Ansible publishes nothing of a task that does."""
    with pytest.raises(NotFound):
        served.play("disconnect", instances=[ALICE, "nobody@example.com"])
    (begun,) = served.shown
    run = begun["ansible_facts"]["vpnfleet_run"]
    assert (run["nodes"], run["stages"]) == ([], {})
    answer = served.tell(run)
    message = "no instance is called nobody@example.com"
    assert (answer["msg"], answer["undone"]) == (message, [message])
    assert answer["ansible_stats"]["data"]["vpnfleet"] == {
        "operation": "disconnect",
        "status": "error",
        "code": 404,
        "changed": False,
        "message": message,
        "operations": [],
    }
    refused = [one for one in served.rows(AuditEntry) if one.result == "refused"]
    assert sorted((one.subject, one.details["code"]) for one in refused) == [
        (ALICE, 404),
        ("nobody@example.com", 404),
    ]
    with pytest.raises(NotFound):
        served.play("disconnect", instance="nobody@example.com", check=True)
    assert len([one for one in served.rows(AuditEntry) if one.result == "refused"]) == 2


def test_what_something_else_takes_the_place_of_is_on_record(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", instance=ALICE)
    served.play("remove", instance=ALICE)
    told = [(one.action, one.result) for one in served.rows(AuditEntry) if one.subject == ALICE]
    assert told[1:] == [
        ("disconnect", "error"),
        ("disconnect", "canceled"),
        ("remove", "partial_success"),
    ]


def test_no_peers_are_kept_once_they_are_in_place(served: Controller) -> None:
    """They may have preshared keys; while they wait, they are encrypted."""
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("provision", instance=ALICE, peers=[{"name": "second"}])
    (waiting,) = [one for one in of_kind(served, "provision") if one.state == "pending"]
    assert waiting.request["peers_sealed"]
    served.play("remove", instance=ALICE)
    assert [one for one in of_kind(served, "provision") if "peers_sealed" in one.request] == []


def test_what_is_published_has_an_end(served: Controller) -> None:
    """The registry has it all."""
    names = [f"customer{number}@example.com" for number in range(700)]
    published = served.play("remove", instances=names)
    assert (published["truncated"], published["operations_count"]) == (True, 700)
    assert 100 < len(published["operations"]) < 700
    assert len(json.dumps(published)) < 330_000
    assert len([one for one in of_kind(served, "remove") if one.result]) == 700


def test_lists_of_peers_share_what_can_be_published(served: Controller) -> None:
    peers = [{"name": f"{number} {'x' * 240}"} for number in range(60)]
    customers = [{"instance": f"c{number}@example.com", "peers": peers} for number in range(12)]
    published = served.play("provision", instances=customers)
    assert len(json.dumps(published)) < 330_000
    assert len(published["operations"]) == 12
    for one in published["operations"]:
        assert (one["peers_count"], len(one["peers"]), one["truncated"]) == (60, 20, True)
