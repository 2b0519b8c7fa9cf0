"""Operations that wait in the registry: who takes them, in which order, and that each of them ends once."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, operations, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    Invalid,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Node,
    Operation,
    OperationEvent,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry.consistency import (
    assert_all_is_well,
    left_to_do,
    problems,
)
from tests.unit.plugins.plugin_utils.registry.rows import add_node, any_key
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back

ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"
NL, DE, FR = "nl1.example.com", "de1.example.com", "fr1.example.com"
LEASE = timedelta(seconds=60)
ELSEWHERE = '{"machine": "another", "pid": 1, "started": 1}'
WORKER = process_token(os.getpid())


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice and Bob are on nl1, Carol is on de1."""
    controller.play("provision", instances=[ALICE, BOB], node=NL)
    controller.play("provision", instance=CAROL, node=DE)
    controller.fleet.calls.clear()
    return controller


def submit(
    controller: Controller, kind: str, check: bool = False, actor: str = "api:billing", **asked: Any
) -> str:
    with controller.registry.write() as session:
        return queue.submit(session, kind, asked, actor, check).id


def claim(
    controller: Controller, places: Iterable[Any] = (), most: int = 10, worker: str = WORKER
) -> list[queue.Batch]:
    with controller.registry.write() as session:
        return queue.claim(session, worker, LEASE, set(places), most)


def release(controller: Controller, ids: Iterable[str], pause: float = 0) -> int:
    with controller.registry.write() as session:
        return queue.release(session, WORKER, list(ids), timedelta(seconds=pause))


def change(controller: Controller, number: str, **values: Any) -> None:
    with controller.registry.write() as session:
        session.execute(update(Operation).where(Operation.id == number).values(**values))


def row(controller: Controller, number: str) -> Operation:
    with controller.registry.read() as session:
        return session.get_one(Operation, number)


def audited(controller: Controller, number: str) -> list[tuple[str, str]]:
    """Who did it and how it went, in the order of the audit."""
    entries = [one for one in controller.rows(AuditEntry) if one.operation_id == number]
    return [(one.actor, one.result) for one in sorted(entries, key=lambda one: one.id)]


def taken(batches: Iterable[queue.Batch]) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(one.kind, one.node, one.ids) for one in batches]


# ---- submit


@pytest.mark.parametrize(
    ("kind", "asked", "error"),
    [
        ("disconnect", {"instance": "{{ lookup('pipe', 'id') }}"}, Invalid),
        ("disconnect", {"instance": 7}, Invalid),
        ("disconnect", {}, Invalid),
        ("disconnect", {"instance": "nobody@example.com"}, NotFound),
        ("disconnect", {"instances": [ALICE, BOB]}, Invalid),
        ("transfer", {"instance": ALICE}, Invalid),
        ("transfer", {"instance": "nobody@example.com", "node": DE}, NotFound),
        ("transfer", {"instance": ALICE, "node": "es1.example.com"}, NotFound),
        ("provision", {"instance": "new@example.com", "node": "es1.example.com"}, NotFound),
        ("provision", {"instance": "new@example.com", "peers": [{"private_key": "x"}]}, Invalid),
        ("reconcile", {"node": "es1.example.com"}, NotFound),
        ("reconcile", {"node": NL, "remove_unknown": "perhaps"}, Invalid),
        ("drift", {"node": "../nodes"}, Invalid),
        ("drift", {"nodes": [NL, DE]}, Invalid),
    ],
)
def test_what_cannot_be_is_not_recorded(
    served: Controller, kind: str, asked: dict[str, Any], error: type[Exception]
) -> None:
    before = len(served.rows(Operation))
    with pytest.raises(error):
        submit(served, kind, **asked)
    assert len(served.rows(Operation)) == before


def test_what_is_submitted_waits_and_does_nothing_yet(served: Controller) -> None:
    number = submit(served, "transfer", instance=ALICE, node=DE)
    found = row(served, number)
    assert (found.state, found.attempts, found.owner, found.not_before) == ("pending", 0, None, None)
    assert (found.instance_name, found.node_id, found.requested_by) == (ALICE, None, "api:billing")
    assert served.instance(ALICE).node.name == NL
    assert served.fleet.calls == []
    assert audited(served, number) == []


def test_a_customer_who_is_on_the_way_can_be_disconnected(controller: Controller) -> None:
    first = submit(controller, "provision", instance=ALICE, node=NL, peers=[{"name": "phone"}])
    second = submit(controller, "disconnect", instance=ALICE)
    assert taken(claim(controller)) == [("provision", NL, (first,))]
    controller.play("provision", operations=[first])
    assert controller.up(ALICE) == [NL]
    assert taken(claim(controller)) == [("disconnect", NL, (second,))]
    assert controller.one("disconnect", operations=[second])["code"] == 200
    assert controller.up(ALICE) == []
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_customer_whose_way_has_failed_cannot(controller: Controller) -> None:
    first = submit(controller, "provision", instance=ALICE, node=NL)
    with controller.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, first), "api:ops")
    with pytest.raises(NotFound):
        submit(controller, "disconnect", instance=ALICE)


def test_preshared_keys_wait_encrypted_and_are_forgotten(controller: Controller) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    number = submit(
        controller,
        "provision",
        instance=ALICE,
        node=NL,
        peers=[{"public_key": any_key(), "preshared_key": key}],
    )
    assert key not in str(row(controller, number).request)
    controller.play("provision", operations=[number])
    assert [
        peer["preshared_key"] for _, _, one in controller.fleet.everything() for peer in one["peers"]
    ] == [key]
    assert "peers_sealed" not in row(controller, number).request


# ---- claim


def test_one_kind_on_one_node_is_claimed_together(served: Controller) -> None:
    alice = submit(served, "disconnect", instance=ALICE)
    carol = submit(served, "disconnect", instance=CAROL)
    bob = submit(served, "disconnect", instance=BOB)
    new = submit(served, "provision", instance="new@example.com")
    repair = submit(served, "reconcile", node=NL)
    look = submit(served, "drift", node=NL)
    plan = submit(served, "disconnect", check=True, instance=ALICE)
    batches = claim(served)
    assert taken(batches) == [
        ("disconnect", NL, (alice, bob)),
        ("disconnect", DE, (carol,)),
        ("provision", None, (new,)),
        ("reconcile", NL, (repair,)),
        ("drift", NL, (look,)),
        ("disconnect", None, (plan,)),
    ]
    assert [(one.look, one.check) for one in batches] == [(False, False)] * 4 + [(True, False), (True, True)]
    assert len({one.place for one in batches}) == len(batches)
    assert {row(served, number).owner for one in batches for number in one.ids} == {WORKER}
    assert claim(served) == []


def test_a_transfer_is_of_the_node_where_it_goes(served: Controller) -> None:
    alice = submit(served, "transfer", instance=ALICE, node=FR)
    bob = submit(served, "transfer", instance=BOB, node=DE)
    carol = submit(served, "transfer", instance=CAROL, node=FR)
    assert taken(claim(served)) == [("transfer", FR, (alice, carol)), ("transfer", DE, (bob,))]


def test_the_operations_on_an_instance_keep_their_order(served: Controller) -> None:
    first = submit(served, "disconnect", instance=ALICE)
    second = submit(served, "provision", instance=ALICE)
    third = submit(served, "disconnect", instance=ALICE)
    for kind, number in (("disconnect", first), ("provision", second), ("disconnect", third)):
        assert taken(claim(served)) == [(kind, NL, (number,))]
        assert claim(served) == []
        served.play(kind, operations=[number])
    assert served.up(ALICE) == []
    assert [row(served, number).state for number in (first, second, third)] == ["succeeded"] * 3


def test_one_that_may_not_be_tried_yet_keeps_its_turn(served: Controller) -> None:
    first = submit(served, "disconnect", instance=ALICE)
    second = submit(served, "provision", instance=ALICE)
    change(served, first, not_before=now() + timedelta(minutes=1))
    assert claim(served) == []
    change(served, first, not_before=now() - timedelta(seconds=1))
    assert taken(claim(served)) == [("disconnect", NL, (first,))]
    assert row(served, second).owner is None


def test_one_that_is_tried_again_holds_up_nothing(served: Controller) -> None:
    first = submit(served, "disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", operations=[first])
    again = row(served, first)
    assert (again.state, again.attempts, again.owner) == ("pending", 1, None)
    assert again.not_before is not None
    assert again.not_before > now()
    assert claim(served) == []
    second = submit(served, "provision", instance=ALICE)
    served.fleet.set_weather(Weather.FINE)
    assert taken(claim(served)) == [("provision", NL, (second,))]
    served.play("provision", operations=[second])
    assert (row(served, first).state, row(served, first).error) == (
        "canceled",
        "superseded by a later provision",
    )
    assert served.up(ALICE) == [NL]
    assert_all_is_well(served.registry, served.fleet)


def test_a_retry_has_its_turn_when_its_time_has_come(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    for attempts in (1, 2, 3):
        change(served, number, not_before=None)
        (batch,) = claim(served)
        assert (batch.ids, batch.tries) == ((number,), attempts - 1)
        served.play("disconnect", operations=[number])
        found = row(served, number)
        assert found.not_before is not None
        seconds = (found.not_before - now()).total_seconds()
        assert 10 * 2 ** (attempts - 1) - 5 < seconds <= 10 * 2 ** (attempts - 1)
    # Each try has ended alike: that is told once.
    assert audited(served, number) == [("api:billing", "error")]


def test_what_waits_for_a_dead_node_is_in_nobodys_way(
    served: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_MOST_LOOKED_AT", 5)
    for number in range(20):
        waits = submit(served, "remove", instance=f"x{number}@example.com")
        change(served, waits, attempts=3, not_before=now() + timedelta(minutes=9))
    fresh = submit(served, "disconnect", instance=ALICE)
    assert taken(claim(served)) == [("disconnect", NL, (fresh,))]


def test_a_claim_asks_little_however_many_wait(served: Controller) -> None:
    for number in range(50):
        submit(served, "remove", instance=f"x{number}@example.com")
    submit(served, "disconnect", instance=ALICE)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(served.registry.engine, "before_cursor_execute", note)
    assert len(claim(served)) == 2
    reads = [statement for statement in asked if statement.startswith("SELECT operation")]
    assert len(reads) == 3


def test_a_reconcile_of_a_removed_node_is_no_look(served: Controller) -> None:
    with served.registry.write() as session:
        add_node(session, "old.example.com")
    number = submit(served, "reconcile", node="old.example.com")
    with served.registry.write() as session:
        apply_nodes(session, [{"name": "old.example.com", "state": "absent"}])
    found = row(served, number)
    assert (found.state, found.node_id) == ("canceled", None)
    assert found.error == "node old.example.com was removed"
    assert not queue.is_look(found)
    assert claim(served) == []


def test_places_in_use_are_left_alone(served: Controller) -> None:
    submit(served, "disconnect", instance=ALICE)
    carol = submit(served, "disconnect", instance=CAROL)
    assert taken(claim(served, places=[("disconnect", NL)])) == [("disconnect", DE, (carol,))]


def test_no_more_places_than_asked_for_but_all_of_each(served: Controller) -> None:
    alice = submit(served, "disconnect", instance=ALICE)
    carol = submit(served, "disconnect", instance=CAROL)
    bob = submit(served, "disconnect", instance=BOB)
    assert claim(served, most=0) == []
    assert taken(claim(served, most=1)) == [("disconnect", NL, (alice, bob))]
    assert taken(claim(served, most=1)) == [("disconnect", DE, (carol,))]


def test_a_batch_has_its_limit(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_TOGETHER", 3)
    ids = [submit(controller, "provision", instance=f"c{number}@example.com", node=NL) for number in range(5)]
    assert taken(claim(controller)) == [("provision", NL, tuple(ids[:3]))]
    assert taken(claim(controller)) == [("provision", NL, tuple(ids[3:]))]


def test_two_workers_never_get_the_same(controller: Controller) -> None:
    ids = {submit(controller, "provision", instance=f"c{number}@example.com") for number in range(40)}
    ids |= {submit(controller, "drift", node=NL) for _ in range(10)}
    barrier = threading.Barrier(4)
    got: list[str] = []

    def work() -> None:
        barrier.wait()
        for _ in range(4):
            got.extend(number for one in claim(controller, most=2) for number in one.ids)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(ids)


@pytest.mark.parametrize("state", ["pending", "running"])
def test_what_the_dead_have_held_is_taken_over_once(served: Controller, state: str) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    for owner, lease, free in (
        (WORKER, -LEASE, False),  # its process is there: whatever the lease says
        (ELSEWHERE, LEASE, False),
        (token_of_the_dead(), LEASE, True),
        (ELSEWHERE, -LEASE, True),
    ):
        change(served, number, state=state, owner=owner, lease_until=now() + lease, not_before=None)
        assert [one.ids for one in claim(served)] == ([(number,)] if free else [])
        assert claim(served) == []
        assert claim(served, worker=ELSEWHERE) == []
    # And the run of the last claim takes it up, although the worker tells in the meantime that it is alive.
    with served.registry.write() as session:
        queue.extend(session, LEASE, [number])
    assert served.one("disconnect", operations=[number])["operation_id"] == number
    assert row(served, number).state == "succeeded"


def test_a_worker_that_goes_on_keeps_what_it_has(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    (batch,) = claim(served, worker=ELSEWHERE)
    change(served, number, lease_until=now() + timedelta(seconds=1))
    with served.registry.write() as session:
        queue.extend(session, LEASE, batch.ids)
    found = row(served, number)
    assert found.lease_until is not None
    assert found.lease_until > now() + LEASE / 2


def test_whoever_gave_it_back_is_not_said_to_be_alive(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    with served.registry.write() as session:
        queue.extend(session, LEASE, [number])
    assert row(served, number).lease_until is None
    assert [one.ids for one in claim(served)] == [(number,)]


# ---- begin


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
    published = served.play("transfer", operations=ids)
    assert [one["operation_id"] for one in published["operations"]] == good
    assert published["status"] == "success"
    assert [row(served, number).state for number in ids] == ["succeeded", "failed", "pending", "succeeded"]
    assert (row(served, gone).result or {})["code"] == 404
    assert (row(served, gone).error or "").startswith("no instance is called gone@example.com")
    waits = row(served, busy)
    assert waits.attempts == 0
    assert waits.not_before is not None
    assert waits.not_before > now()
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


# ---- killed


ASKED: dict[str, dict[str, Any]] = {
    "provision": {"instance": "new@example.com", "node": NL, "peers": [{"name": "phone"}]},
    "disconnect": {"instance": ALICE},
    "transfer": {"instance": ALICE, "node": DE},
    "remove": {"instance": ALICE},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ASKED)
def test_killed_at_every_point_it_ends_once(served: Controller, kind: str) -> None:
    number = submit(served, kind, **ASKED[kind])
    beside = submit(served, kind, **{**ASKED[kind], "instance": BOB})
    nodes = pickle.dumps(served.fleet)
    keep(served.registry, "before")
    points, killed = 0, True
    while killed:
        points += 1
        put_back(served.registry, "before")
        served.fleet = pickle.loads(nodes)  # noqa: S301
        (batch,) = claim(served)
        assert batch.ids == (number, beside)
        killed = served.killed(points, kind, operations=list(batch.ids))
        assert problems(served.registry, served.fleet) == [], points
        release(served, batch.ids)
        # What the run has ended is not begun again; all that it has not, is.
        left = [one for one in batch.ids if row(served, one).state in queue.UNFINISHED]
        again = [one for each in claim(served) for one in each.ids]
        assert sorted(again) == sorted(left), points
        if again:
            served.play(kind, operations=again)
        for one in batch.ids:
            assert row(served, one).state == "succeeded", points
            assert audited(served, one) == [("api:billing", "success")], points
        assert_all_is_well(served.registry, served.fleet)
    assert points > 6
    assert len(served.rows(AuditEntry)) == 5


# ---- cancel


def cancel(controller: Controller, number: str, actor: str = "api:ops") -> None:
    with controller.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, number), actor)


def test_what_nobody_has_begun_is_canceled_at_once(served: Controller) -> None:
    number = submit(served, "provision", instance=ALICE, peers=[{"name": "phone"}])
    cancel(served, number)
    found = row(served, number)
    assert (found.state, found.error, found.owner) == ("canceled", "canceled by api:ops", None)
    assert found.finished_at is not None
    assert "peers_sealed" not in found.request
    assert audited(served, number) == [("api:ops", "canceled")]
    assert claim(served) == []
    assert served.play("provision", operations=[number])["operations"] == []
    with pytest.raises(Conflict, match="has ended already: it is canceled"):
        cancel(served, number)
    assert len(audited(served, number)) == 1


@pytest.mark.parametrize("state", ["pending", "running"])
def test_whoever_is_at_work_is_asked_to_stop(served: Controller, state: str) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    claim(served)
    change(served, number, state=state)
    cancel(served, number)
    found = row(served, number)
    assert (found.state, found.cancel_requested_by, found.owner) == (state, "api:ops", WORKER)
    assert audited(served, number) == [("api:ops", "accepted")]


def test_what_has_ended_is_not_canceled(served: Controller) -> None:
    done = submit(served, "disconnect", instance=ALICE)
    served.play("disconnect", operations=[done])
    failed = submit(served, "drift", node=NL)
    with served.registry.write() as session:
        looks.end(session.get_one(Operation, failed), None, "no")
    for number, state in ((done, "succeeded"), (failed, "failed")):
        with pytest.raises(Conflict, match=f"it is {state}"):
            cancel(served, number)
        assert row(served, number).state == state


def test_a_retry_that_is_canceled_leaves_the_node_to_a_reconcile(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.LOST, NL)
    served.play("disconnect", operations=[number])
    served.fleet.set_weather(Weather.FINE)
    cancel(served, number)
    assert row(served, number).state == "canceled"
    (batch,) = claim(served)
    assert (batch.kind, batch.node) == ("reconcile", NL)
    assert row(served, batch.ids[0]).requested_by == "api:ops"
    with_drift(served).play("reconcile", operations=list(batch.ids))
    assert_all_is_well(served.registry, served.fleet)


def test_a_reconcile_that_is_given_up_is_not_begun_again(served: Controller) -> None:
    number = submit(served, "reconcile", node=NL)
    run = operations.Run(new_id(), token_of_the_dead(), "", frozenset([NL, DE, FR]))
    with served.registry.write() as session:
        (begun,) = queue.begin(session, [session.get_one(Operation, number)], run)
        assert begun.state == "running"
    cancel(served, number)
    assert row(served, number).state == "canceled"
    assert claim(served) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ASKED)
def test_canceled_after_a_kill_at_any_point_nothing_is_left_behind(served: Controller, kind: str) -> None:
    """The dead have begun something on nodes: who cancels it leaves no customer half-way."""
    number = submit(served, kind, **ASKED[kind])
    nodes = pickle.dumps(served.fleet)
    keep(served.registry, "before")
    points, killed = 0, True
    while killed:
        points += 1
        put_back(served.registry, "before")
        served.fleet = pickle.loads(nodes)  # noqa: S301
        claim(served)
        killed = served.killed(points, kind, operations=[number])
        release(served, [number])
        if row(served, number).state not in queue.UNFINISHED:
            continue
        cancel(served, number)
        assert row(served, number).state == "canceled"
        fleet = with_drift(served)
        for batch in claim(served):
            assert batch.kind == "reconcile", points
            fleet.play("reconcile", operations=list(batch.ids))
        assert problems(served.registry, served.fleet) == [], points
        assert left_to_do(served.registry, served.fleet) == [], points
    assert points > 6


# ---- release


def test_what_a_run_has_left_is_tried_again_after_the_pause(served: Controller) -> None:
    first, second = submit(served, "disconnect", instance=ALICE), submit(served, "disconnect", instance=BOB)
    (batch,) = claim(served)
    served.play("disconnect", operations=[second])
    assert release(served, batch.ids, 30) == 1
    found = row(served, first)
    assert (found.state, found.owner, found.lease_until) == ("pending", None, None)
    assert found.not_before is not None
    assert 25 < (found.not_before - now()).total_seconds() <= 30
    assert claim(served) == []
    assert row(served, second).not_before is None


def test_what_has_its_time_already_keeps_it(served: Controller) -> None:
    """A node was away: the run has done what it could, and nothing is wrong with it."""
    number = submit(served, "disconnect", instance=ALICE)
    (batch,) = claim(served)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("disconnect", operations=list(batch.ids))
    before = row(served, number).not_before
    assert release(served, batch.ids, 300) == 0
    assert row(served, number).not_before == before


def test_what_another_holds_is_not_released(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    claim(served, worker=ELSEWHERE)
    assert release(served, [number]) == 0
    assert row(served, number).owner == ELSEWHERE


def test_what_is_told_of_a_run_is_there_in_order(served: Controller) -> None:
    ids = [submit(served, "disconnect", instance=name) for name in (ALICE, BOB)]
    with served.registry.write() as session:
        for step in range(3):
            queue.tell(session, ids, "progress", {"step": step})
    with served.registry.read() as session:
        query = select(OperationEvent.operation_id, OperationEvent.data).order_by(OperationEvent.id)
        told = [(number, data["step"]) for number, data in session.execute(query)]
    assert told == [(number, step) for step in range(3) for number in ids]


def test_looks_at_nodes_that_nobody_ends_are_ended(served: Controller) -> None:
    with served.registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == NL)).one()
        for number, holder in (("alive", WORKER), ("dead", token_of_the_dead())):
            row = Operation(id=number, kind="drift", state="running", node_id=node.id, owner=holder)
            session.add(row)
    with served.registry.write() as session:
        queue.end_abandoned(session)
    states = {one.id: one.state for one in served.rows(Operation) if one.kind == "drift"}
    assert states == {"alive": "running", "dead": "canceled"}
