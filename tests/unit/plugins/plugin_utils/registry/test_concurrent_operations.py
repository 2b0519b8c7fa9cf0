"""Many controllers at once, each a process of its own, on one registry."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import database
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Busy, NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Operation,
    PeerAllowedIp,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

Context = multiprocessing.get_context("fork")
Play = Callable[[Controller], dict[str, Any]]


def at_once(controller: Controller, *plays: Play) -> list[tuple[Any, SimulatedFleet]]:
    """What each play answers or raises, and the nodes as it knows them, when all begin at the same moment; each in a
    process whose parent is its playbook, as in Ansible."""
    barrier, answers = Context.Barrier(len(plays)), Context.SimpleQueue()

    def work(number: int) -> None:
        barrier.wait()
        try:
            answer: Any = plays[number](controller)
        except Exception as error:
            answer = error
        answers.put((number, answer, controller.fleet))

    def playbook(number: int) -> None:
        worker = Context.Process(target=work, args=(number,))
        worker.start()
        worker.join()

    # A daemon may have no children of its own.
    processes = [Context.Process(target=playbook, args=(number,)) for number in range(len(plays))]
    for process in processes:
        process.start()
    found = {number: (answer, fleet) for number, answer, fleet in (answers.get() for _ in plays)}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return [found[number] for number in range(len(plays))]


@pytest.mark.parametrize("targets", [(DE, DE), (DE, FR), (FR, NL)])
def test_of_two_transfers_at_the_same_moment_one_wins(
    controller: Controller, targets: tuple[str, str]
) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    # Who has begun waits on the way to its first node, until the other was told.
    told = Context.Event()

    def play(node: str) -> Play:
        def run(mine: Controller) -> dict[str, Any]:
            points: list[str] = []

            def at(point: str) -> None:
                points.append(point)
                # Who stays where she is has no way. (A refusal is a transaction that failed, and then one more.)
                begun = node == NL and points == [
                    "before a transaction",
                    "before a commit",
                    "after a transaction",
                ]
                if point.endswith("is called") or begun:
                    assert told.wait(60)

            mine.at = at
            try:
                return mine.one("transfer", instance=ALICE, node=node)
            except Busy:
                told.set()
                raise

        return run

    found = at_once(controller, *map(play, targets))
    (won,) = [(answer, fleet) for answer, fleet in found if not isinstance(answer, Exception)]
    (lost,) = [answer for answer, _ in found if isinstance(answer, Exception)]
    assert isinstance(lost, Busy), lost
    (operation,) = [one for one in controller.rows(Operation) if one.kind == "transfer"]
    assert str(lost).startswith(f"{ALICE} is busy: transfer {operation.id} is at work on it since ")
    assert (won[0]["status"], won[0]["operation_id"]) == ("success", operation.id)
    controller.fleet = won[1]
    assert controller.up(ALICE) == [controller.instance(ALICE).node.name]
    assert controller.instance(ALICE).node.name in targets
    assert_all_is_well(controller.registry, controller.fleet)


def test_twenty_customers_at_once_get_a_place_each(controller: Controller) -> None:
    count = 20
    plays: list[Play] = [
        lambda mine, name=f"customer{number}@example.com": mine.one(  # type: ignore[misc]
            "provision", instance=name, peers=[{"name": "phone"}, {"name": "tablet"}]
        )
        for number in range(count)
    ]
    found = at_once(controller, *plays)
    assert [getattr(answer, "args", answer["status"]) for answer, _ in found] == ["success"] * count
    instances = controller.rows(Instance)
    assert len({one.id for one in instances}) == len({one.name for one in instances}) == count
    assert len({(one.node_id, one.listen_port) for one in instances}) == count
    assert len({one.subnet for one in instances}) == len({one.subnet6 for one in instances}) == count
    addresses = [one.network for one in controller.rows(PeerAllowedIp)]
    assert len(set(addresses)) == len(addresses) == count * 2 * 2
    # They went to where there was least of them.
    assert max(Counter(one.node_id for one in instances).values()) == 7
    for _, fleet in found:
        for name, interface, wanted in fleet.everything():
            controller.fleet.nodes[name].up[interface] = wanted
    assert_all_is_well(controller.registry, controller.fleet)


def test_the_same_new_customer_twice_at_once_is_one(controller: Controller) -> None:
    """Who comes second is told, or finds it done."""
    plays: list[Play] = [lambda mine: mine.one("provision", instance=ALICE, node=NL)] * 4
    told = at_once(controller, *plays)
    found = [answer for answer, _ in told]
    done = [answer for answer in found if not isinstance(answer, Exception)]
    assert all(isinstance(answer, Busy) for answer in found if isinstance(answer, Exception)), found
    assert [answer["code"] for answer in done].count(201) == 1
    assert len(controller.rows(Instance)) == 1
    controller.fleet = next(fleet for answer, fleet in told if answer in done)
    assert_all_is_well(controller.registry, controller.fleet)


def hold_the_writers_lock(controller: Controller, held: Any, release: Any) -> None:
    with controller.registry.write():
        held.set()
        assert release.wait(60)


def test_a_run_waits_for_the_writer_before_it(controller: Controller) -> None:
    held, release = Context.Event(), Context.Event()
    writer = Context.Process(target=hold_the_writers_lock, args=(controller, held, release))
    writer.start()
    assert held.wait(60)
    began = Context.Event()

    def play(mine: Controller) -> dict[str, Any]:
        began.set()
        return mine.one("provision", instance=ALICE)

    def let_go(_controller: Controller) -> dict[str, Any]:
        assert began.wait(60)
        # A reader does not wait for it.
        assert controller.rows(Instance) == []
        release.set()
        return {}

    (answer, _), _ = at_once(controller, play, let_go)
    writer.join()
    assert answer["status"] == "success"


def test_a_writer_that_is_killed_lets_go(controller: Controller) -> None:
    held = Context.Event()
    writer = Context.Process(target=hold_the_writers_lock, args=(controller, held, Context.Event()))
    writer.start()
    assert held.wait(60)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert controller.one("provision", instance=ALICE)["status"] == "success"


def test_who_waits_too_long_is_told(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is done, and the next one finds the registry as it was."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.2)
    registry = database.Registry(database.make_engine(controller.registry.engine.url))
    held, release = Context.Event(), Context.Event()
    writer = Context.Process(target=hold_the_writers_lock, args=(controller, held, release))
    writer.start()
    assert held.wait(60)
    try:
        with pytest.raises(NotUsable, match="cannot be used: "):
            Controller(registry, controller.fleet).play("provision", instance=ALICE)
    finally:
        release.set()
        writer.join()
    assert controller.rows(Operation) == []
    assert controller.one("provision", instance=ALICE)["status"] == "success"
