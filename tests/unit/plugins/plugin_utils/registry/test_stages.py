"""How far an operation has come, as its row keeps it."""

from __future__ import annotations

import json

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, Operation
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import Job, Outcome

A, B, C = (Node(id=name, name=f"{name}.example.com") for name in "abc")
DONE, FAILED = Outcome(stages.DONE, changed=True), Outcome(stages.FAILED, error="no")
AWAY = Outcome(stages.UNREACHABLE, error="down")


def planned() -> Operation:
    """First on A and, if it can be, on B; then on B and C."""
    operation = Operation(kind="transfer")
    stages.plan(operation, "first", A)
    stages.plan(operation, "first", B, needed=False)
    stages.plan(operation, "second", B)
    stages.plan(operation, "second", C)
    return operation


def test_a_plan_can_be_stored_and_read_again() -> None:
    operation = planned()
    operation.progress = json.loads(json.dumps(operation.progress))
    assert stages.nodes(operation, "first") == ["a.example.com", "b.example.com"]
    assert stages.nodes(operation, "third") == []
    assert {found["state"] for found in stages.outcomes(operation).values()} == {stages.WAITING}
    assert len(stages.outcomes(operation)) == 4
    assert not stages.changed(operation)


def test_each_step_is_a_new_value() -> None:
    """SQLAlchemy writes what is assigned, and does not look into it."""
    operation = planned()
    before = operation.progress
    kept = json.dumps(before)
    stages.set_outcome(operation, "first", A, DONE)
    stages.note(operation, x=1)
    assert operation.progress is not before
    assert json.dumps(before) == kept


def test_a_stage_waits_for_what_is_needed_of_those_before() -> None:
    operation = planned()
    assert not stages.held_up(operation, "first")
    assert stages.held_up(operation, "second")
    stages.set_outcome(operation, "first", B, AWAY)
    stages.set_outcome(operation, "first", A, FAILED)
    assert stages.held_up(operation, "second")
    stages.set_outcome(operation, "first", A, DONE)
    assert not stages.held_up(operation, "second")
    stages.set_outcome(operation, "second", B, FAILED)
    assert not stages.held_up(operation, "second")


def test_what_did_not_begin_is_no_trouble_of_its_own() -> None:
    operation = planned()
    stages.set_outcome(operation, "first", A, FAILED)
    stages.set_outcome(operation, "first", B, AWAY)
    assert stages.troubles(operation) == [
        "node a.example.com: no",
        "node b.example.com cannot be reached: down",
    ]
    assert stages.troubles(operation, "a") == ["node a.example.com: no"]
    assert stages.troubles(operation, but="a") == ["node b.example.com cannot be reached: down"]


def test_what_was_not_needed_is_none_either() -> None:
    operation = planned()
    stages.set_outcome(operation, "first", A, DONE)
    stages.set_outcome(operation, "first", B, AWAY)
    stages.set_outcome(operation, "second", B, DONE)
    assert stages.troubles(operation) == ["node c.example.com was left out of this run"]


def test_what_changed_is_known_in_the_end() -> None:
    operation = planned()
    stages.set_outcome(operation, "first", A, DONE)
    assert stages.changed(operation)
    stages.forget(operation)
    assert not stages.changed(operation)
    assert stages.outcomes(operation) == {}
    stages.note(operation, changed=True, other="kept")
    stages.forget(operation)
    assert stages.changed(operation)
    assert operation.progress == {"changed": True, "other": "kept"}


def test_a_job_shows_no_secret() -> None:
    job = Job(
        "id", {"name": "wg1", "state": "present", "private_key": "hunter2", "peers": [{"preshared_key": "x"}]}
    )
    assert repr(job) == str(job) == "Job(id, wg1, present)"
