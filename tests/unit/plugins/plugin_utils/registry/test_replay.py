"""Check mode: each stage of a plan is what it would be, and nothing stays of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import operations, stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Busy, NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Operation,
    new_id,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import read_requests
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller


@pytest.fixture
def served(controller: Controller) -> Controller:
    controller.play("provision", instances=[ALICE, BOB], node=NL)
    controller.fleet.calls.clear()
    return controller


def run_of(kind: str) -> dict[str, Any]:
    return {"id": new_id(), "operation": kind, "hosts": [NL, DE, FR]}


def wanted(controller: Controller, kind: str, stage: str, on: str, **variables: Any) -> list[tuple[str, str]]:
    """Interfaces and states that the stage would want of the node."""
    with controller.registry.write(keep=False) as session:
        held = replay(session, run_of(kind), variables, before=stage)
        jobs = operations.jobs(session, held, stage, require_node(session, on))
        return [(job.wanted["name"], job.wanted["state"]) for job in jobs]


def test_a_later_stage_is_planned_as_if_the_one_before_had_been_done(served: Controller) -> None:
    interface = served.instance(ALICE).interface
    asked = {"instance": ALICE, "node": DE}
    assert wanted(served, "transfer", "arrive", DE, **asked) == [(interface, "present")]
    assert wanted(served, "transfer", "arrive", NL, **asked) == []
    assert wanted(served, "transfer", "leave", NL, **asked) == [(interface, "absent")]
    assert wanted(served, "disconnect", "apply", NL, instance=ALICE) == [(interface, "disconnected")]
    assert wanted(served, "remove", "apply", NL, instance=ALICE) == [(interface, "absent")]


def test_in_the_end_all_went_well(served: Controller) -> None:
    run = run_of("transfer")
    with served.registry.write(keep=False) as session:
        held = replay(session, run, {"instances": [ALICE, BOB], "node": DE}, before=None)
        assert [found["state"] for one in held for found in stages.outcomes(one).values()] == [
            stages.DONE
        ] * 4
        results = operations.finish(
            session, held, operations.Run(run["id"], process_token(1), "tester", frozenset())
        )
    assert [(one["status"], one["node"], one["changed"]) for one in results] == [("success", DE, True)] * 2


@pytest.mark.parametrize("kind", ["provision", "disconnect", "transfer", "remove"])
def test_nothing_stays_of_a_plan(served: Controller, kind: str) -> None:
    before = (len(served.rows(Operation)), len(served.rows(AuditEntry)))
    more = {"node": DE} if kind == "transfer" else {}
    for _ in range(2):
        result = served.play(kind, instances=[ALICE, BOB], check=True, **more)
        assert result["status"] == "planned"
        assert [one["status"] for one in result["operations"]] == ["planned"] * 2
        assert {one["operation_id"] for one in result["operations"]} == {None}
    assert (len(served.rows(Operation)), len(served.rows(AuditEntry))) == before
    assert served.fleet.calls == []
    assert_all_is_well(served.registry, served.fleet)


def test_what_could_not_be_done_cannot_be_planned(served: Controller) -> None:
    with pytest.raises(NotFound):
        served.play("disconnect", instance="nobody@example.com", check=True)
    with served.registry.write() as session:
        run = operations.Run(new_id(), process_token(1), "tester", frozenset([NL, DE, FR]))
        operations.begin(session, "disconnect", read_requests("disconnect", {"instance": ALICE}), run)
    with pytest.raises(Busy):
        served.play("remove", instance=ALICE, check=True)
