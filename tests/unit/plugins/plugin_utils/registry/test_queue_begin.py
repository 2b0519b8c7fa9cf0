"""What a run makes of the ids that it is given, and that it ends once wherever it is killed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy import update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, operations, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    Invalid,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Node,
    Operation,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry import queued
from tests.unit.plugins.plugin_utils.registry.consistency import (
    assert_all_is_well,
    problems,
)
from tests.unit.plugins.plugin_utils.registry.queued import (
    ASKED,
    audited,
    change,
    claim,
    each_kill,
    row,
    submit,
    taken,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, CAROL, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

served = queued.served


def test_the_bad_are_not_in_the_way_of_the_good(served: Controller) -> None:
    served.play("provision", instance="full@example.com", node=FR)
    good = [submit(served, "transfer", instance=name, node=FR) for name in (ALICE, CAROL)]
    gone = submit(served, "transfer", instance="full@example.com", node=NL)
    busy = submit(served, "transfer", instance=BOB, node=FR)
    with served.registry.write() as session:
        # Bob is another run's, and somebody else is gone by the time it is their turn.
        run = operations.Run(new_id(), process_token(1), "root", frozenset([NL, DE, FR]))
        held = Operation(
            kind="disconnect", instance_name=BOB, state="running", run_id=run.id, owner=run.owner, attempts=1
        )
        session.add(held)
    change(
        served, gone, instance_name="gone@example.com", request={"instance": "gone@example.com", "node": FR}
    )
    ids = [good[0], gone, busy, good[1]]
    asked = now()
    published = served.play("transfer", operations=ids)
    assert [one["operation_id"] for one in published["operations"]] == good
    assert published["status"] == "success"
    assert [row(served, number).state for number in ids] == ["succeeded", "failed", "pending", "succeeded"]
    assert (row(served, gone).result or {})["code"] == 404
    assert (row(served, gone).error or "").startswith("no instance is called gone@example.com")
    waits = row(served, busy)
    assert waits.attempts == 0
    assert waits.not_before is not None
    assert waits.not_before > asked
    assert (served.up(ALICE), served.up(CAROL), served.up(BOB)) == ([FR], [FR], [NL])
    assert problems(served.registry, served.fleet) == []
    with served.registry.write() as session:
        session.get_one(Operation, held.id).owner = token_of_the_dead()
    change(served, busy, not_before=None)
    assert served.one("transfer", operations=[busy])["status"] == "success"
    assert_all_is_well(served.registry, served.fleet)


def test_who_finds_the_node_full_is_told_so(controller: Controller) -> None:
    with controller.registry.write() as session:
        session.execute(update(Node).where(Node.name == NL).values(max_peers=2))
    ids = [
        submit(
            controller,
            "provision",
            instance=name,
            node=NL,
            peers=[{"name": f"device {n}"} for n in range(count)],
        )
        for name, count in ((ALICE, 1), (BOB, 2), (CAROL, 1))
    ]
    controller.play("provision", operations=ids)
    assert [row(controller, number).state for number in ids] == ["succeeded", "failed", "succeeded"]
    full = row(controller, ids[1])
    assert (full.result or {})["code"] == 409
    assert "peers_sealed" not in full.request
    assert [result for _, result in audited(controller, ids[1])] == ["error"]
    assert_all_is_well(controller.registry, controller.fleet)


def test_whoever_asked_is_the_actor_not_whoever_runs_the_playbook(
    served: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VPNFLEET_ACTOR", "the worker")
    alice = submit(served, "disconnect", instance=ALICE, actor="api:billing")
    bob = submit(served, "disconnect", instance=BOB, actor="api:ops")
    unknown = submit(served, "disconnect", instance=CAROL, actor="api:third")
    change(served, unknown, instance_name="gone@example.com", request={"instance": "gone@example.com"})
    served.play("disconnect", operations=[alice, bob, unknown])
    assert audited(served, alice) == [("api:billing", "success")]
    assert audited(served, bob) == [("api:ops", "success")]
    assert audited(served, unknown) == [("api:third", "error")]


def test_the_same_ids_again_do_nothing(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    served.play("disconnect", operations=[number])
    served.play("provision", instance=ALICE)
    before = row(served, number)
    assert served.play("disconnect", operations=[number])["operations"] == []
    after = row(served, number)
    assert (after.result, after.attempts, after.finished_at) == (before.result, 1, before.finished_at)
    assert served.up(ALICE) == [NL]
    assert len(audited(served, number)) == 1


def test_what_another_run_is_at_work_on_is_not_taken_up(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    claim(served)
    change(served, number, state="running", run_id=new_id())
    assert served.play("disconnect", operations=[number])["operations"] == []
    assert (row(served, number).state, served.up(ALICE)) == ("running", [NL])


def test_a_reconcile_is_taken_up_by_its_id(served: Controller) -> None:
    fleet = with_drift(served)
    interface = served.instance(ALICE).interface
    del served.fleet.nodes[NL].up[interface]
    number = submit(served, "reconcile", node=NL)
    assert row(served, number).node_id is not None
    assert taken(claim(served)) == [("reconcile", NL, (number,))]
    assert fleet.one("reconcile", operations=[number])["operation_id"] == number
    assert row(served, number).state == "succeeded"
    assert served.up(ALICE) == [NL]
    assert audited(served, number) == [("api:billing", "success")]


@pytest.mark.parametrize("kind", ["provision", "disconnect", "transfer", "remove"])
def test_a_plan_changes_nothing(served: Controller, kind: str) -> None:
    name = "new@example.com" if kind == "provision" else ALICE
    number = submit(served, kind, check=True, instance=name, **({"node": DE} if kind == "transfer" else {}))
    instances = [(one.name, one.state, one.node_id) for one in served.rows(type(served.instance(ALICE)))]
    up, audit = pickle.dumps(served.fleet.nodes), len(served.rows(AuditEntry))
    before = len(served.rows(Operation))
    (batch,) = claim(served)
    assert (batch.ids, batch.look, batch.check) == ((number,), True, True)
    published = served.play(kind, check=True, operations=[number])
    assert published["status"] == "planned"
    assert [one["instance"] for one in published["operations"]] == [name]
    assert [
        (one.name, one.state, one.node_id) for one in served.rows(type(served.instance(ALICE)))
    ] == instances
    assert pickle.dumps(served.fleet.nodes) == up
    assert len(served.rows(AuditEntry)) == audit
    assert len(served.rows(Operation)) == before
    assert row(served, number).state == "pending"
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, number), published, "")
    assert (row(served, number).state, row(served, number).result) == ("succeeded", published)


def test_nothing_is_done_with_a_plan_that_is_run_for_good(served: Controller) -> None:
    """The worker's mistake, or somebody's who has seen the id."""
    number = submit(served, "remove", check=True, instance=ALICE)
    up = pickle.dumps(served.fleet.nodes)
    with pytest.raises(Conflict, match="run it with --check"):
        served.play("remove", operations=[number])
    assert served.instance(ALICE).state == "present"
    assert pickle.dumps(served.fleet.nodes) == up


def test_a_look_at_nodes_publishes_and_ends(served: Controller) -> None:
    fleet = with_drift(served)
    interface = served.instance(ALICE).interface
    del served.fleet.nodes[NL].up[interface]
    one, everywhere = submit(served, "drift", node=NL), submit(served, "drift")
    assert [batch.look for batch in claim(served)] == [True, True]
    published = fleet.play("drift", operations=[one])
    assert published["operations"][0]["data"]["has_drift"] is True
    report = fleet.play("drift", operations=[everywhere])["data"]
    assert (report["summary"]["total_nodes"], report["summary"]["nodes_with_drift"]) == (3, 1)
    assert served.up(ALICE) == []
    assert [one.actor for one in served.rows(AuditEntry) if one.action == "drift"] == ["api:billing"] * 4
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, one), published, "")
    assert claim(served) == []


def test_a_look_that_could_not_be_had_has_failed(served: Controller) -> None:
    nothing_came, refused = (
        submit(served, "drift", node=NL),
        submit(served, "disconnect", True, instance=ALICE),
    )
    told = {"operation": "disconnect", "status": "error", "code": 404, "message": "gone", "operations": []}
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, nothing_came), None, "the playbook failed")
        looks.end(session.get_one(Operation, refused), told, "")
    first, second = row(served, nothing_came), row(served, refused)
    assert (first.state, first.error, (first.result or {})["code"]) == ("failed", "the playbook failed", 500)
    assert (second.state, second.error, second.result) == ("failed", "gone", told)
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, refused), None, "too late")
    assert row(served, refused).error == "gone"


@pytest.mark.parametrize("kind", ["disconnect", "provision", "remove"])
def test_an_operator_is_told_to_wait_for_what_is_queued(served: Controller, kind: str) -> None:
    number = submit(served, "transfer", instance=ALICE, node=DE)
    with pytest.raises(Busy, match=f"transfer {number} is waiting"):
        served.play(kind, instances=[BOB, ALICE])
    found = row(served, number)
    assert (found.state, found.error, found.attempts) == ("pending", None, 0)
    assert served.fleet.calls == []
    # Also when it has been claimed and its run is about to begin.
    claim(served)
    with pytest.raises(Busy):
        served.play(kind, instance=ALICE)
    served.play("transfer", operations=[number])
    served.play(kind, instance=ALICE)
    assert row(served, number).state == "succeeded"


def test_an_operator_takes_over_what_is_only_to_be_tried_again(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", operations=[number])
    served.fleet.set_weather(Weather.FINE)
    assert served.one("disconnect", instance=ALICE)["operation_id"] == number
    assert row(served, number).state == "succeeded"


@pytest.mark.parametrize(
    "given",
    [
        "{{ lookup('pipe', 'touch /tmp/executed') }}",
        ["{{ lookup('pipe', 'touch /tmp/executed') }}"],
        ["../../etc/passwd"],
        ["' OR 1=1 --"],
        ["x" * 2**20],
        "x" * 2**20,
        [],
        {},
        [7],
        [None],
        [["a"]],
        7,
        True,
        "00000000-0000-0000-0000-000000000000",
        ["00000000-0000-0000-0000-000000000000"],
        ["00000000-0000-0000-0000-00000000000\n"],
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_is_no_id_is_refused(served: Controller, given: Any) -> None:
    good = submit(served, "disconnect", instance=ALICE)
    entries = len(served.rows(AuditEntry))
    for ids in (given, [good, *given] if isinstance(given, list) and given else given):
        with pytest.raises(Invalid) as caught:
            served.play("disconnect", operations=ids)
        # Nothing of it is repeated: neither for who reads the log, nor for a template to come alive.
        assert len(str(caught.value)) < 200
        assert "lookup" not in str(caught.value)
    assert served.fleet.calls == []
    assert row(served, good).state == "pending"
    assert len(served.rows(AuditEntry)) == entries


def test_an_id_of_another_kind_is_refused(served: Controller) -> None:
    good, other = submit(served, "disconnect", instance=ALICE), submit(served, "remove", instance=BOB)
    with pytest.raises(Invalid, match="no disconnect"):
        served.play("disconnect", operations=[good, other])
    assert [row(served, number).state for number in (good, other)] == ["pending", "pending"]
    assert served.up(BOB) == [NL]


def test_ids_rule_over_names(served: Controller) -> None:
    """Both are given: what is recorded is done, and nothing else."""
    number = submit(served, "disconnect", instance=ALICE)
    served.play("disconnect", operations=[number], instance=BOB)
    assert (served.up(ALICE), served.up(BOB)) == ([], [NL])


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ASKED)
def test_killed_at_every_point_it_ends_once(served: Controller, kind: str) -> None:
    number = submit(served, kind, **ASKED[kind])
    beside = submit(served, kind, **{**ASKED[kind], "instance": BOB})
    for point in each_kill(served, kind, number, beside):
        # What the run has ended is not begun again; all that it has not, is.
        left = [one for one in (number, beside) if row(served, one).state in queue.UNFINISHED]
        again = [one for each in claim(served) for one in each.ids]
        assert sorted(again) == sorted(left), point
        if again:
            served.play(kind, operations=again)
        for one in (number, beside):
            assert row(served, one).state == "succeeded", point
            assert audited(served, one) == [("api:billing", "success")], point
        assert_all_is_well(served.registry, served.fleet)
    assert len(served.rows(AuditEntry)) == 5
