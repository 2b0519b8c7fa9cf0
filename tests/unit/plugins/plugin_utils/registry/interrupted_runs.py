"""Runs that are interrupted at a point: scenarios, and where in them a run is killed, by a real SIGKILL of a process of
its own, also within its transactions."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, Weather, nothing
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

Asked = tuple[str, dict[str, Any]]
Before = tuple[tuple[Asked, dict[str, Weather]], ...]

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
    before: Before = ()
    now: dict[str, Weather] = field(default_factory=dict)


SERVED: Before = ((PROVISION, {}),)
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


def points_of(controller: Controller, asked: Asked) -> list[str]:
    """Where the run can be interrupted, in its order."""
    points: list[str] = []
    controller.at = points.append
    play(controller, asked)
    controller.at = nothing
    return points


def points_to_try(registry: Registry, name: str, points: Sequence[str]) -> range:
    """The numbers of all points; with PostgreSQL, and every day, some of them are enough: the steps are the same."""
    few = not THOROUGH and registry.engine.dialect.name == "postgresql"
    return range(1 + len(name) % 4, len(points) + 1, 4) if few else all_points(points)


def points_apart(registry: Registry, name: str, points: Sequence[str]) -> Sequence[int]:
    """As above, but for points at which a killed run leaves the same behind as at the one before: nothing was committed
    in between, and no node was called."""
    apart = [
        number
        for number, point in enumerate(points, 1)
        if number == 1 or point.startswith(("after", "while"))
    ]
    few = not THOROUGH and registry.engine.dialect.name == "postgresql"
    return apart[len(name) % 2 :: 2] if few else apart


def all_points(points: Sequence[str]) -> range:
    """Each of them."""
    return range(1, len(points) + 1)


def each_kill(
    controller: Controller, asked: Asked, which: Callable[[Sequence[str]], Iterable[int]] = all_points
) -> Iterator[int]:
    """Every time the run is killed at another point, and all is as it was then. `which` is told the points."""
    registry, nodes = controller.registry, pickle.dumps(controller.fleet)
    keep(registry, "before")
    for number in which(points_of(controller, asked)):
        put_back(registry, "before")
        controller.fleet = pickle.loads(nodes)  # noqa: S301
        controller.fleet = killed_at(controller, asked, number)
        yield number


def concerned(controller: Controller) -> list[str]:
    """The nodes on which there is something of hers, or may be; any node if there is none."""
    with controller.registry.read() as session:
        instances = session.scalars(select(Instance.node_id).where(Instance.name == ALICE))
        left = session.scalars(select(Teardown.node_id).where(Teardown.instance_name == ALICE))
        query = select(Node.name).where(Node.id.in_({*instances, *left}))
        return sorted(session.scalars(query)) or [FR]


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
