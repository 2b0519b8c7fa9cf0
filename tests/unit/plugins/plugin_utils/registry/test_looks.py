"""Looks at nodes that many ask for at once: few runs, and nobody is shown what was before he asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import fleet_report, looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    NodeCheck,
    Operation,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry import queued
from tests.unit.plugins.plugin_utils.registry.queued import LEASE, WORKER, row
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

ANOTHER = process_token(os.getppid())
PAUSE = timedelta(seconds=1)


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    """Alice on nl1, whose interface is not there."""
    made = with_drift(controller)
    made.play("provision", instance=ALICE, node=NL)
    made.fleet.nodes[NL].up.clear()
    return made


def ask(fleet: DriftController, node: str | None = None, actor: str = "api:ops") -> str:
    asked: dict[str, Any] = {} if node is None else {"node": node}
    return queued.submit(fleet, "drift", actor=actor, **asked)


def claim(fleet: DriftController, worker: str = WORKER, places: Iterable[Any] = ()) -> list[tuple[str, ...]]:
    return [batch.ids for batch in queued.claim(fleet, places, worker=worker)]


def settle(
    fleet: DriftController, ids: Iterable[str], published: Any, pause: timedelta | None = PAUSE
) -> None:
    with fleet.registry.write() as session:
        looks.settle(session, list(ids), published, "no", pause)


def answer_to(fleet: DriftController, number: str) -> dict[str, Any]:
    """What a caller is told in the end."""
    with fleet.registry.read() as session:
        return looks.result_of(session, session.get_one(Operation, number)) or {}


def parts(fleet: DriftController) -> list[str]:
    """The nodes that runs have looked at, once for each time."""
    return sorted(one.request["node"] for one in fleet.rows(Operation) if one.node_id is not None)


def audited(fleet: DriftController) -> list[tuple[str, str, str]]:
    entries = [one for one in fleet.rows(AuditEntry) if one.action == "drift"]
    return sorted((one.actor, one.subject, one.result) for one in entries)


def rest_is_over(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        session.execute(update(Operation).values(not_before=now() - PAUSE))


@pytest.mark.parametrize("node", [NL, None])
def test_those_that_ask_at_once_share_a_run(fleet: DriftController, node: str | None) -> None:
    ids = [ask(fleet, node, f"api:{number}") for number in range(10)]
    assert claim(fleet) == [tuple(ids)]
    published = fleet.play("drift", operations=ids)
    settle(fleet, ids, published)
    assert [(row(fleet, one).state, answer_to(fleet, one)) for one in ids] == [("succeeded", published)] * 10
    nodes = [NL] if node else [DE, FR, NL]
    assert parts(fleet) == nodes
    assert len(fleet.rows(NodeCheck)) == len(nodes)
    assert audited(fleet) == sorted(
        [("api:0", name, "success") for name in nodes]
        + [(f"api:{number}", node or "", "success") for number in range(1, 10)]
    )


def test_what_is_shared_is_kept_once_and_forgotten_together(fleet: DriftController) -> None:
    ids = [ask(fleet) for _ in range(3)]
    claim(fleet)
    published = fleet.play("drift", operations=ids)
    settle(fleet, ids, published)
    assert row(fleet, ids[0]).result == published
    for number in ids[1:]:
        assert row(fleet, number).result == {"operation": "drift", "status": "success", "same_as": ids[0]}
        assert answer_to(fleet, number) == published
    assert len({row(fleet, number).finished_at for number in ids}) == 1
    with fleet.registry.write() as session:
        session.delete(session.get_one(Operation, ids[0]))
    assert answer_to(fleet, ids[1])["message"] == "What was found is no longer kept"


def test_who_asks_has_all_nodes_also_where_a_run_cannot_publish_them(
    fleet: DriftController, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fleet.play("drift")["data"]
    number = ask(fleet)
    claim(fleet)
    monkeypatch.setattr(fleet_report, "MOST_CHARACTERS", 3000)
    published = fleet.play("drift", operations=[number])
    assert len(json.dumps(published)) < 3500
    assert published["truncated"] is published["data"]["truncated"] is True
    assert published["operations_count"] == 3
    with fleet.registry.read() as session:
        node_id = require_node(session, NL).id
    # The one that differs, though not with all that differs.
    assert [one["node"] for one in published["operations"]] == [NL]
    assert list(published["data"]["nodes"]) == [node_id]
    assert published["data"]["summary"] == whole["summary"]
    settle(fleet, [number], published)
    found = answer_to(fleet, number)["data"]
    for nodes in (found["nodes"], whole["nodes"]):
        for one in nodes.values():
            del one["detected_at"]
    assert found == whole


def test_those_that_come_before_the_run_begins_are_taken_in(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    assert claim(fleet) == [(first,)]
    second, elsewhere, everywhere = ask(fleet, NL, "api:second"), ask(fleet, DE), ask(fleet)
    published = fleet.play("drift", operations=[first])
    settle(fleet, [first], published)
    assert answer_to(fleet, second) == published
    assert ("api:second", NL, "success") in audited(fleet)
    assert {row(fleet, one).state for one in (elsewhere, everywhere)} == {"pending"}
    assert claim(fleet) == [(elsewhere,), (everywhere,)]


@pytest.mark.parametrize(
    ("first", "second", "counts"), [(None, 5, 5), (5, None, 5), (9, 3, 3), (3, 9, 3), (None, None, None)]
)
def test_of_those_that_share_the_shortest_time_counts(
    fleet: DriftController, first: int | None, second: int | None, counts: int | None
) -> None:
    numbers = []
    for seconds in (first, second):
        with fleet.registry.write() as session:
            asked = {} if seconds is None else {"timeout": seconds}
            numbers.append(queue.submit(session, "drift", asked, "api:ops").id)
        if len(numbers) == 1:
            assert claim(fleet) == [tuple(numbers)]
    settle(fleet, numbers[:1], fleet.play("drift", operations=numbers[:1]))
    limits = {one.request.get("timeout") for one in fleet.rows(Operation) if one.node_id is not None}
    assert limits == {counts}
    assert {row(fleet, one).state for one in numbers} == {"succeeded"}


def test_those_that_come_later_share_the_next_run(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    later: list[str] = []

    def at(point: str) -> None:
        if point == f"before {NL} is called":
            later.extend(ask(fleet, NL) for _ in range(3))

    fleet.at = at
    published = fleet.play("drift", operations=[first])
    fleet.at = lambda _point: None
    # While it is looked at, no other worker looks, too.
    assert claim(fleet, ANOTHER) == []
    settle(fleet, [first], published)
    assert [row(fleet, one).state for one in later] == ["pending"] * 3
    fleet.play("reconcile", node=NL)
    assert claim(fleet) == [tuple(later)]
    settle(fleet, later, fleet.play("drift", operations=later))
    found = [answer_to(fleet, one)["operations"][0]["data"]["has_drift"] for one in (first, *later)]
    assert found == [True, False, False, False]
    assert parts(fleet).count(NL) == 3  # with the reconcile


def test_a_look_at_the_fleet_serves_those_at_its_nodes(fleet: DriftController) -> None:
    fleet.fleet.nodes[FR].weather = Weather.UNREACHABLE
    with fleet.registry.write() as session:
        require_node(session, DE).enabled = False
    everywhere = ask(fleet)
    claim(fleet)
    asked = {name: ask(fleet, name, f"api:{name}") for name in (NL, DE, FR)}
    states: dict[str, str] = {}

    def at(point: str) -> None:
        # The nodes have their turn by name. Nobody waits for those that come after his own.
        if point == f"before {NL} is called":
            states.update({name: row(fleet, one).state for name, one in asked.items()})

    fleet.at = at
    published = fleet.play("drift", operations=[everywhere])
    assert states == {NL: "pending", DE: "pending", FR: "failed"}
    assert row(fleet, asked[NL]).state == "succeeded"
    settle(fleet, [everywhere], published)
    assert answer_to(fleet, everywhere) == published
    # As one that is asked for alone, but for the id of what was done on the node.
    told = row(fleet, asked[NL]).result or {}
    alone = fleet.play("drift", node=NL)
    for one in (told, alone):
        del one["operations"][0]["operation_id"]
        del one["operations"][0]["data"]["detected_at"]
    assert told == alone
    down = row(fleet, asked[FR])
    assert (down.result or {})["status"] == "error"
    assert (down.result or {})["operations"][0]["code"] == 500
    assert "cannot be reached" in (down.result or {})["operations"][0]["message"]
    # It is not one of the fleet.
    assert (row(fleet, asked[DE]).state, row(fleet, asked[DE]).owner) == ("pending", None)
    assert claim(fleet) == [(asked[DE],)]
    assert {(f"api:{NL}", NL, "success"), (f"api:{FR}", FR, "error")} <= set(audited(fleet))


def test_what_a_run_of_the_fleet_could_not_tell_is_looked_at_again(fleet: DriftController) -> None:
    everywhere = ask(fleet)
    claim(fleet)
    alone = ask(fleet, NL)
    fleet.begin("drift", None, False, {"operations": [everywhere]})
    assert row(fleet, alone).owner == WORKER
    settle(fleet, [everywhere], {"status": "error", "message": "refused", "code": 404, "operations": []})
    assert row(fleet, everywhere).error == "refused"
    assert (row(fleet, alone).state, row(fleet, alone).owner, row(fleet, alone).result) == (
        "pending",
        None,
        None,
    )
    rest_is_over(fleet)
    assert claim(fleet) == [(alone,)]


def test_without_a_result_they_are_tried_again_together(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    second = ask(fleet, NL)
    fleet.begin("drift", None, False, {"operations": [first]})
    for tries in (1, 2):
        settle(fleet, [first, second] if tries > 1 else [first], None)
        assert {(row(fleet, one).state, row(fleet, one).attempts) for one in (first, second)} == {
            ("pending", tries)
        }
        assert claim(fleet) == []
        rest_is_over(fleet)
        assert claim(fleet) == [(first, second)]
    settle(fleet, [first, second], None)
    assert {row(fleet, one).state for one in (first, second)} == {"failed"}
    assert audited(fleet) == [("api:ops", NL, "error")] * 2


def test_one_that_rests_holds_up_nobody(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    settle(fleet, [first], None, timedelta(hours=1))
    second = ask(fleet, NL)
    assert claim(fleet) == [(second,)]


def test_what_the_dead_have_claimed_is_taken_up(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet, token_of_the_dead())
    second = ask(fleet, NL)
    assert claim(fleet) == [(first, second)]


def test_what_has_joined_is_held_as_long_as_its_run(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    second = ask(fleet, NL)
    fleet.begin("drift", None, False, {"operations": [first]})
    for number in (first, second):
        assert (row(fleet, number).owner, row(fleet, number).lease_until) == (
            WORKER,
            row(fleet, first).lease_until,
        )
    before = row(fleet, second).lease_until
    with fleet.registry.write() as session:
        queue.extend(session, LEASE * 2, [first])
        queue.give_back(session, WORKER, [first])
    held = row(fleet, second)
    assert held.owner == WORKER
    assert held.lease_until is not None
    assert before is not None
    assert held.lease_until > before
    with fleet.registry.write() as session:
        queue.give_back(session, WORKER, [])
    assert claim(fleet) == [(first, second)]


def test_what_has_joined_goes_along_when_it_is_begun_once_more(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    second = ask(fleet, NL)
    fleet.begin("drift", None, False, {"operations": [first]})
    published = fleet.play("drift", operations=[first])
    settle(fleet, [first], published)
    assert answer_to(fleet, second) == published


@pytest.mark.parametrize("joined", [True, False])
def test_one_that_shares_is_canceled_alone(fleet: DriftController, joined: bool) -> None:
    first, second = ask(fleet, NL), ask(fleet, NL, "api:second")
    claim(fleet)
    if joined:
        fleet.begin("drift", None, False, {"operations": [first, second]})
    for number, state in ((first, "canceled"), (second, "pending")):
        with fleet.registry.write() as session:
            queue.cancel(session, session.get_one(Operation, number), "api:boss")
        assert row(fleet, number).state == state
    # The last one takes the run along, which the worker ends.
    assert row(fleet, second).cancel_requested_by == "api:boss"


def test_who_goes_on_is_audited_when_the_first_one_does_not(fleet: DriftController) -> None:
    first, second = ask(fleet, NL, "api:first"), ask(fleet, NL, "api:second")
    claim(fleet)
    with fleet.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, first), "api:first")
    published = fleet.play("drift", operations=[first, second])
    settle(fleet, [first, second], published)
    assert (row(fleet, first).state, row(fleet, second).state) == ("canceled", "succeeded")
    assert audited(fleet) == [("api:first", NL, "canceled"), ("api:second", NL, "success")]


def test_nobody_joins_what_is_to_be_canceled(fleet: DriftController) -> None:
    first = ask(fleet, NL)
    claim(fleet)
    with fleet.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, first), "api:ops")
    second = ask(fleet, NL)
    fleet.begin("drift", None, False, {"operations": [first]})
    assert row(fleet, second).owner is None


def test_a_plan_is_nobody_elses(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        plans = [queue.submit(session, "reconcile", {"node": NL}, "api:ops", check=True).id for _ in range(2)]
    assert sorted(claim(fleet)) == sorted((one,) for one in plans)


# ---- when the next look at the fleet is due


def due_in(fleet: DriftController, seconds: float = 100) -> float:
    with fleet.registry.read() as session:
        return looks.due_in(session, timedelta(seconds=seconds)).total_seconds()


def asked_ago(fleet: DriftController, number: str, seconds: float, **values: Any) -> None:
    with fleet.registry.write() as session:
        session.execute(
            update(Operation)
            .where(Operation.id == number)
            .values(created_at=now() - timedelta(seconds=seconds), **values)
        )


def test_a_look_at_the_fleet_is_due_an_interval_after_the_last_one(fleet: DriftController) -> None:
    assert due_in(fleet) <= 0
    number = ask(fleet)
    # Not while one waits or is at work, however long that takes.
    asked_ago(fleet, number, 1000)
    assert 0 < due_in(fleet) <= 100
    assert due_in(fleet, 2) == 2
    asked_ago(fleet, number, 30, state="succeeded")
    assert 60 < due_in(fleet) <= 70
    asked_ago(fleet, number, 101)
    assert due_in(fleet) <= 0
    # A clock that was in the future does not switch it off.
    asked_ago(fleet, number, -5000)
    assert due_in(fleet) == 100


def test_other_looks_do_not_count(fleet: DriftController) -> None:
    ask(fleet, NL)
    fleet.play("drift")  # by hand: it is not recorded for a worker
    with fleet.registry.write() as session:
        queue.submit(session, "reconcile", {"node": NL}, "api:ops", check=True)
    assert due_in(fleet) <= 0


def test_without_enabled_nodes_there_is_nothing_to_look_at(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        for name in (NL, DE, FR):
            require_node(session, name).enabled = False
    assert due_in(fleet) == 100
