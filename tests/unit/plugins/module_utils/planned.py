"""Targets, plans, and what a simulated node makes of them."""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import steps as steps_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import (
    target,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    InterfaceState,
    Peer,
)
from tests.unit.plugins.module_utils.generated import (
    by_key,
    peer,
    private_key,
    public_key_of,
)
from tests.unit.plugins.module_utils.simulator import DEFAULT_MTU, SimulatedNode

NEW_KEY = private_key(9)
FREE_PORT = 45678


def wanted_of(desired: Desired, actual: InterfaceState) -> InterfaceState:
    return target(desired, actual, public_key_of, lambda: NEW_KEY, lambda: FREE_PORT, lambda: DEFAULT_MTU)


def carried_out(actual: InterfaceState, steps: list[steps_of.Step]) -> InterfaceState:
    node = SimulatedNode(actual)
    for step in steps:
        node.apply(step)
    return node.state()


def some_peers(count: int) -> dict[str, Peer]:
    return by_key(*(peer(number, f"10.0.{number // 250}.{number % 250}/32") for number in range(count)))
