"""Operations in any sequence, on nodes of any weather, killed at any point.

At every moment: nothing is up that the registry does not know, nothing is believed that is not so, nothing is given
twice, and whoever was served is served, unless that was to end. After an operation that was not killed, with all nodes
well, everything of its customer is as the registry says, and in the end everything of all.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems, told_secrets
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import (
    SimulatedFleet,
    SimulatedNode,
    Weather,
)
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import empty

CUSTOMERS = [ALICE, BOB]
NODES = [NL, DE, FR]
KEYS = {name: chr(ord("b") + number) * 42 + "A=" for number, name in enumerate(CUSTOMERS)}

customers = st.sampled_from(CUSTOMERS)
nodes = st.sampled_from(NODES)
# A run has at most so many points at which it may end: more, and it is not killed.
kills = st.none() | st.integers(1, 36)
orders = st.sampled_from([sorted, lambda names: sorted(names, reverse=True)])


class AnySequence(RuleBasedStateMachine):
    """The rules; `controller` is set by the test."""

    controller: DriftController

    def __init__(self) -> None:
        super().__init__()
        self.controller.fleet = SimulatedFleet({name: SimulatedNode() for name in NODES})
        with self.controller.registry.write() as session:
            empty(session, Node.__tablename__)
        self.said: list[Any] = []

    # ---- rules

    @rule(
        name=customers,
        node=st.none() | nodes,
        devices=st.sets(st.sampled_from(["phone", "tablet", "router"])),
        kill=kills,
        order=orders,
    )
    def provision(self, name: str, node: str | None, devices: set[str], kill: int | None, order: Any) -> None:
        peers: list[dict[str, Any]] = [
            {"name": device, "preshared_key": KEYS[name]} for device in sorted(devices)
        ]
        self.play("provision", [name], kill, order, node=node, peers=peers)

    @rule(name=customers, kill=kills, order=orders)
    def disconnect(self, name: str, kill: int | None, order: Any) -> None:
        self.play("disconnect", [name], kill, order)

    @rule(name=customers, node=nodes, kill=kills, order=orders)
    def transfer(self, name: str, node: str, kill: int | None, order: Any) -> None:
        self.play("transfer", [name], kill, order, node=node)

    @rule(name=customers, kill=kills, order=orders)
    def remove(self, name: str, kill: int | None, order: Any) -> None:
        self.play("remove", [name], kill, order)

    @rule(kind=st.sampled_from(["disconnect", "transfer", "remove"]), node=nodes, kill=kills, order=orders)
    def do_to_all(self, kind: str, node: str, kill: int | None, order: Any) -> None:
        self.play(kind, self.known(), kill, order, **({"node": node} if kind == "transfer" else {}))

    @rule(node=nodes, kill=kills)
    def reconcile(self, node: str, kill: int | None) -> None:
        before = self.served()
        if kill is None:
            self.said.append(self.controller.play("reconcile", node=node))
        else:
            self.controller.killed(kill, "reconcile", node=node)
        self.said.append(self.controller.shown)
        assert before <= self.served(), f"reconcile of {node} left {before - self.served()} without service"

    @rule(node=nodes, weather=st.sampled_from(Weather))
    def change_weather(self, node: str, weather: Weather) -> None:
        self.controller.fleet.set_weather(weather, node)

    @rule()
    def clear_up(self) -> None:
        self.controller.fleet.set_weather(Weather.FINE)

    # ---- what must hold

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert problems(self.controller.registry, self.controller.fleet) == []

    def teardown(self) -> None:
        self.controller.fleet.set_weather(Weather.FINE)
        with self.controller.registry.read() as session:
            states = {one.name: one.state for one in session.scalars(select(Instance))}
            left = set(session.scalars(select(Teardown.instance_name)))
            left |= set(
                session.scalars(
                    select(Operation.instance_name).where(
                        Operation.state.in_(("running", "pending")), Operation.instance_name.is_not(None)
                    )
                )
            )
        if states:
            assert told_secrets(self.controller.registry, *self.said) == []
        # There are two ways to bring everything to its end: to ask for it again, and to reconcile the nodes.
        if len(self.said) % 2:
            for name in sorted(left | states.keys()):
                kind = {"present": "provision", "disconnected": "disconnect"}.get(
                    states.get(name, ""), "remove"
                )
                self.controller.play(kind, instance=name)
        for node in NODES:
            self.controller.play("reconcile", node=node)
        assert problems(self.controller.registry, self.controller.fleet) == []
        assert left_to_do(self.controller.registry, self.controller.fleet) == []

    # ---- how it is done

    def known(self) -> list[str]:
        with self.controller.registry.read() as session:
            return sorted(session.scalars(select(Instance.name)))

    def served(self) -> set[str]:
        """The customers who are to be up, and are up somewhere."""
        with self.controller.registry.read() as session:
            return {
                one.name
                for one in session.scalars(select(Instance).where(Instance.state == "present"))
                if self.controller.fleet.where(one.interface)
            }

    def play(self, kind: str, names: list[str], kill: int | None, order: Any, **variables: Any) -> None:
        if not names:
            return
        before = self.served()
        self.controller.order = order
        well = all(node.weather is Weather.FINE for node in self.controller.fleet.nodes.values())
        try:
            if kill is None:
                self.said.append(self.controller.play(kind, instances=names, **variables))
            elif self.controller.killed(kill, kind, instances=names, **variables):
                well = False
        except (Conflict, Full, NotFound) as error:
            self.said.append(error)
            well = False
        self.said.append(self.controller.shown)
        if kind in ("disconnect", "remove"):
            before -= set(names)
        assert before <= self.served(), f"{kind} of {names} left {before - self.served()} without service"
        if well:
            for name in names:
                assert left_to_do(self.controller.registry, self.controller.fleet, name) == []


@pytest.mark.exhaustive
def test_any_sequence(controller: Controller) -> None:
    quick = controller.registry.engine.dialect.name == "sqlite"

    class Machine(AnySequence):
        pass

    Machine.controller = with_drift(controller)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=settings().max_examples // (5 if quick else 30),
            stateful_step_count=15,
            deadline=None,
            # A failing sequence is told as it was found: to make it shorter would take minutes.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
