"""The controller is killed at every point of every operation. What comes next completes it, undoes it or replaces it.

Each run is a process of its own, and gets a real SIGKILL, also within its transactions. Afterwards another operation
of the same customer is asked for, or the same again: in the end one node at the most serves the customer, none does
only if that was asked for, and nothing is left of either operation.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import find_instance
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, Weather, nothing
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back

ALICE, BOB = "alice@example.com", "bob@example.com"
NL, DE, FR = "nl1.example.com", "de1.example.com", "fr1.example.com"

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "ci"

Asked = tuple[str, dict[str, Any]]

PROVISION: Asked = ("provision", {"node": NL, "peers": [{"name": "phone"}]})
MORE_PEERS: Asked = ("provision", {"peers": [{"name": "tablet"}]})
DISCONNECT: Asked = ("disconnect", {})
REMOVE: Asked = ("remove", {})


def to(node: str) -> Asked:
    return ("transfer", {"node": node})


@dataclass(frozen=True)
class Scenario:
    """`before` was done, one after the other, each in a weather; then `asked` is killed in the weather `now`."""

    asked: Asked
    before: tuple[tuple[Asked, dict[str, Weather]], ...] = ()
    now: dict[str, Weather] = field(default_factory=dict)


SERVED = ((PROVISION, {}),)
# The way to fr1 was taken while nl1 could not be reached: it is still up there.
LEFT_BEHIND = (*SERVED, (to(FR), {NL: Weather.UNREACHABLE}))

SCENARIOS = {
    "a new customer": Scenario(PROVISION),
    "more peers": Scenario(MORE_PEERS, SERVED),
    "up again": Scenario(MORE_PEERS, (*SERVED, (DISCONNECT, {}))),
    "disconnection": Scenario(DISCONNECT, SERVED),
    "transfer": Scenario(to(DE), SERVED),
    "transfer of a disconnected one": Scenario(to(DE), (*SERVED, (DISCONNECT, {}))),
    "transfer to a node that refuses": Scenario(to(DE), SERVED, {DE: Weather.REFUSES}),
    "transfer to a node that is lost": Scenario(to(DE), SERVED, {DE: Weather.LOST}),
    "transfer from a node that is away": Scenario(to(DE), SERVED, {NL: Weather.UNREACHABLE}),
    "transfer from a node that is lost": Scenario(to(DE), SERVED, {NL: Weather.LOST}),
    "transfer back": Scenario(to(NL), LEFT_BEHIND),
    "transfer on": Scenario(to(DE), LEFT_BEHIND),
    "disconnection on two nodes": Scenario(DISCONNECT, LEFT_BEHIND),
    "transfer back of a disconnected one": Scenario(
        to(NL), (*LEFT_BEHIND, (DISCONNECT, {NL: Weather.UNREACHABLE}))
    ),
    "removal": Scenario(REMOVE, SERVED),
    "removal on two nodes": Scenario(REMOVE, LEFT_BEHIND),
    "removal from a node that is away": Scenario(REMOVE, SERVED, {NL: Weather.UNREACHABLE}),
}
NEXT = [MORE_PEERS, DISCONNECT, REMOVE, to(NL), to(DE), to(FR)]


def play(controller: Controller, asked: Asked) -> None:
    kind, variables = asked
    controller.play(kind, instance=ALICE, **variables)


def prepare(controller: Controller, scenario: Scenario) -> None:
    controller.play("provision", instance=BOB, node=NL)
    for asked, weather in scenario.before:
        set_weather(controller, weather)
        play(controller, asked)
    set_weather(controller, scenario.now)


def set_weather(controller: Controller, weather: dict[str, Weather]) -> None:
    controller.fleet.set_weather(Weather.FINE)
    for name, how in weather.items():
        controller.fleet.set_weather(how, name)


def count_points(controller: Controller, asked: Asked) -> int:
    points: list[str] = []
    controller.at = points.append
    play(controller, asked)
    controller.at = nothing
    return len(points)


def points_to_try(registry: Registry, name: str, last: int) -> range:
    """All points; with PostgreSQL, and every day, some of them are enough: the steps are the same."""
    few = not THOROUGH and registry.engine.dialect.name == "postgresql"
    return range(1 + len(name) % 4, last + 1, 4) if few else range(1, last + 1)


def all_points(last: int) -> range:
    """Each of them."""
    return range(1, last + 1)


def each_kill(
    controller: Controller, asked: Asked, points: Callable[[int], Iterable[int]] = all_points
) -> Iterator[int]:
    """Every time the run is killed at another point, and all is as it was then. `points` is told the last."""
    registry, nodes = controller.registry, pickle.dumps(controller.fleet)
    keep(registry, "before")
    for number in points(count_points(controller, asked)):
        put_back(registry, "before")
        controller.fleet = pickle.loads(nodes)  # noqa: S301
        controller.fleet = killed_at(controller, asked, number)
        yield number


def killed_at(controller: Controller, asked: Asked, number: int) -> SimulatedFleet:
    """The nodes as they are when the run was killed at its point `number`."""
    receiving, sending = os.pipe()
    playbook = os.fork()
    if playbook == 0:
        # As in Ansible: the playbook's process lives as long as the run, and a worker does the work.
        worker = os.fork()
        if worker == 0:
            _work(controller, asked, number, sending)
        os.close(sending)
        _pid, status = os.waitpid(worker, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:  # it ends when both have ended
        told = stream.read()
    _pid, status = os.waitpid(playbook, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    fleet: SimulatedFleet = pickle.loads(told)  # noqa: S301 - from this very program
    return fleet


def _work(controller: Controller, asked: Asked, number: int, sending: int) -> None:
    points = 0

    def at(_point: str) -> None:
        nonlocal points
        points += 1
        if points == number:
            os.write(sending, pickle.dumps(controller.fleet))
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        controller.at = at
        play(controller, asked)
    finally:
        os._exit(1)


def play_or_find_nobody(controller: Controller, asked: Asked) -> None:
    """Where the kill came before anything was recorded, there is nobody to disconnect and to transfer."""
    with controller.registry.read() as session:
        known = find_instance(session, ALICE) is not None
    if known or asked[0] in ("provision", "remove"):
        play(controller, asked)
        return
    with pytest.raises(NotFound):
        play(controller, asked)
    play(controller, REMOVE)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_point(controller: Controller, name: str) -> None:
    scenario = SCENARIOS[name]
    prepare(controller, scenario)
    registry = controller.registry

    def points(last: int) -> range:
        assert last >= 12
        return points_to_try(registry, name, last)

    wrong = []
    for number in each_kill(controller, scenario.asked, points):
        wrong += [f"killed at {number}: {problem}" for problem in problems(registry, controller.fleet)]
        set_weather(controller, {})
        keep(registry, "killed")
        then = pickle.dumps(controller.fleet)
        everything = [scenario.asked, *NEXT]
        for asked in everything if THOROUGH else [everything[number % len(everything)]]:
            put_back(registry, "killed")
            controller.fleet = pickle.loads(then)  # noqa: S301
            play_or_find_nobody(controller, asked)
            found = problems(registry, controller.fleet) + left_to_do(registry, controller.fleet)
            wrong += [f"killed at {number}, then {asked}: {problem}" for problem in found]
    assert not wrong, "\n".join(wrong)
