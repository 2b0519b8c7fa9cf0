"""A registry that cannot be used for a moment, in the middle of a run that goes on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleError
from sqlalchemy import update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import registry_action
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems
from tests.unit.plugins.plugin_utils.registry.interrupted_runs import (
    SCENARIOS,
    concerned,
    play,
    points_of,
    points_to_try,
    prepare,
    set_weather,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, nothing
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back


def away_at(number: int) -> Callable[[str], None]:
    """What happens at the points of a run: at this one, the registry cannot be used."""
    points = 0

    def at(_point: str) -> None:
        nonlocal points
        points += 1
        if points == number:
            raise NotUsable("for a moment")

    return at


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCENARIOS)
def test_away_once_at_any_point(controller: Controller, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nobody is up where he should not be for good, none who was served is not, and reconciling ends it all."""
    monkeypatch.setattr(registry_action, "_PERSISTENCE", -1.0)
    scenario = SCENARIOS[name]
    fleet = with_drift(controller)
    prepare(fleet, scenario)
    registry, nodes = fleet.registry, pickle.dumps(fleet.fleet)
    keep(registry, "before")
    dead, wrong = token_of_the_dead(), []
    was_up = any(interface for _node, interface, one in fleet.fleet.everything() if one["peers"])
    for number in points_to_try(registry, name, points_of(fleet, scenario.asked)):
        put_back(registry, "before")
        fleet.fleet = pickle.loads(nodes)  # noqa: S301
        fleet.at = away_at(number)
        try:
            play(fleet, scenario.asked)
        except NotUsable:
            with registry.write() as session:  # that playbook has ended
                session.execute(update(Operation).where(Operation.state == "running").values(owner=dead))
        fleet.at = nothing
        wrong += [f"away at {number}: {problem}" for problem in problems(registry, fleet.fleet)]
        set_weather(fleet, {})
        for node in concerned(fleet)[:: 1 if number % 2 else -1]:
            fleet.reconcile(node)
            found = problems(registry, fleet.fleet)
            if was_up and scenario.asked[0] == "transfer" and not is_served(fleet):
                found.append("she is served nowhere")
            wrong += [f"away at {number}, then {node}: {problem}" for problem in found]
        wrong += [f"away at {number}, in the end: {one}" for one in left_to_do(registry, fleet.fleet)]
    assert not wrong, "\n".join(wrong)


def is_served(fleet: Controller) -> bool:
    instance = fleet.instance(ALICE)
    return instance.state != "present" or bool(fleet.fleet.where(instance.interface))


def test_what_was_done_is_written_down_when_the_registry_is_back(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_action, "_PAUSE", 0.0)
    controller.play("provision", instance=ALICE, node=NL)
    away = 3

    def at(point: str) -> None:
        nonlocal away
        if point == "before a commit" and controller.fleet.where(controller.instance(ALICE).interface) == [
            DE
        ]:
            away -= 1
            if away > 0:
                raise NotUsable("for a moment")

    controller.at = at
    result = controller.one("transfer", instance=ALICE, node=DE)
    controller.at = nothing
    assert away < 0
    assert (result["status"], result["pending"], result["node"]) == ("success", False, DE)
    assert left_to_do(controller.registry, controller.fleet) == []


class NoSudo(SimulatedFleet):
    """One of the nodes wants a password for sudo."""

    without = NL

    def call(self, name: str, *arguments: Any) -> dict[str, Any]:
        """As the others, but on this node."""
        if name == self.without:
            raise AnsibleError("Missing sudo password")
        return super().call(name, *arguments)


@pytest.mark.parametrize(("without", "up"), [(NL, [DE, NL]), (DE, [NL])])
def test_a_node_that_ansible_cannot_work_on(controller: Controller, without: str, up: list[str]) -> None:
    """As the source of a transfer it does not stop it; as the target, nothing changes."""
    controller.play("provision", instance=ALICE, node=NL)
    fleet = with_drift(controller)
    well = fleet.fleet
    fleet.fleet = NoSudo(well.nodes)
    fleet.fleet.without = without
    result = fleet.one("transfer", instance=ALICE, node=DE)
    assert result["node"] == (DE if without == NL else NL)
    assert result["status"] == ("success" if without == NL else "error")
    assert "Missing sudo password" in str(result.get("warnings") or result["message"])
    assert fleet.up(ALICE) == up
    fleet.fleet = well
    for node in (NL, DE):
        fleet.reconcile(node)
    assert fleet.up(ALICE) == [result["node"]]
    assert left_to_do(fleet.registry, fleet.fleet) == []
