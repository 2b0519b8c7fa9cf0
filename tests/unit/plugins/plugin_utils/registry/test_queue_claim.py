"""Who takes what waits, in which order, and what becomes of what the dead have held."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from tests.unit.plugins.plugin_utils.registry import queued
from tests.unit.plugins.plugin_utils.registry.consistency import (
    assert_all_is_well,
)
from tests.unit.plugins.plugin_utils.registry.queued import (
    ELSEWHERE,
    LEASE,
    WORKER,
    audited,
    change,
    claim,
    row,
    submit,
    taken,
)
from tests.unit.plugins.plugin_utils.registry.rows import add_node
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, CAROL, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

served = queued.served


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


def test_a_look_whose_time_has_not_come_waits(served: Controller) -> None:
    number = submit(served, "drift", node=NL)
    change(served, number, not_before=now() + timedelta(minutes=5))
    assert claim(served) == []


def test_what_a_dead_worker_had_to_try_again_later_is_in_nobodys_way(served: Controller) -> None:
    number = submit(served, "disconnect", instance=ALICE)
    later = now() + timedelta(minutes=5)
    change(served, number, owner=token_of_the_dead(), attempts=1, not_before=later)
    other = submit(served, "reconcile", node=NL)
    then = submit(served, "provision", instance=ALICE)
    assert sorted(taken(claim(served))) == [("provision", NL, (then,)), ("reconcile", NL, (other,))]
