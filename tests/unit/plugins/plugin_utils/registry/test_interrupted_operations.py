"""The controller is killed at every point of every operation. What comes next completes it, undoes it or replaces it.

Each run is a process of its own, and gets a real SIGKILL, also within its transactions. Afterwards another operation
of the same customer is asked for, or the same again: in the end one node at the most serves the customer, none does
only if that was asked for, and nothing is left of either operation.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import find_instance
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems
from tests.unit.plugins.plugin_utils.registry.interrupted_runs import (
    NEXT,
    REMOVE,
    SCENARIOS,
    THOROUGH,
    Asked,
    each_kill,
    play,
    points_to_try,
    prepare,
    set_weather,
)
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import keep, put_back


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

    def points(found: Sequence[str]) -> range:
        assert len(found) >= 12
        return points_to_try(registry, name, found)

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
