"""A fleet that is reconciled: Alice and Bob on a node, drift of hers, and what tests ask of them afterwards."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Operation,
)
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems
from tests.unit.plugins.plugin_utils.registry.rows import any_key
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

EVERYTHING: dict[str, Any] = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": True}
NOTHING: dict[str, Any] = dict.fromkeys(EVERYTHING, False)


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    """Alice and Bob on nl1, she with a phone and a tablet."""
    made = with_drift(controller)
    made.play("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}, {"name": "tablet"}])
    made.play("provision", instance=BOB, node=NL, peers=[{"name": "laptop"}])
    return made


def up_on(fleet: DriftController, node: str, name: str) -> dict[str, Any]:
    return fleet.fleet.nodes[node].up[interface_of(fleet, name)]


def keys_of(there: dict[str, Any]) -> list[str]:
    return [peer["public_key"] for peer in there["peers"]]


def last_operation(fleet: DriftController, name: str) -> Operation:
    with fleet.registry.read() as session:
        query = select(Operation).where(Operation.instance_name == name).order_by(Operation.created_at.desc())
        return session.scalars(query).all()[0]


def all_is_well(fleet: DriftController) -> bool:
    assert problems(fleet.registry, fleet.fleet) == []
    assert left_to_do(fleet.registry, fleet.fleet) == []
    return True


def mended_once(fleet: DriftController, node: str = NL, **asked: Any) -> dict[str, Any]:
    """The result of a reconcile that check mode has foreseen and that leaves the next one nothing to do."""
    nodes = pickle.dumps(fleet.fleet.nodes)
    (foreseen,) = fleet.play("reconcile", node=node, check=True, **asked)["operations"]
    assert pickle.loads(nodes) == fleet.fleet.nodes  # noqa: S301 - from this very program
    (done,) = fleet.reconcile(node, **asked)
    assert {**foreseen, "status": done["status"], "operation_id": done["operation_id"]} == done
    calls = list(fleet.modules)
    (again,) = fleet.reconcile(node, **asked)
    assert again["changed"] is False
    assert fleet.modules == [(node, "wg_drift")]
    fleet.modules = calls
    return done


def drift_of_alice(fleet: DriftController) -> tuple[str, str, str]:
    """Her phone is gone, her tablet differs, and there is a stranger; their keys."""
    there = up_on(fleet, NL, ALICE)
    phone, tablet = there["peers"]
    stranger: dict[str, Any] = {
        "public_key": any_key(),
        "allowed_ips": ["10.99.0.1/32"],
        "persistent_keepalive": 0,
    }
    there["peers"] = [{**tablet, "persistent_keepalive": 7}, stranger]
    return phone["public_key"], tablet["public_key"], stranger["public_key"]
