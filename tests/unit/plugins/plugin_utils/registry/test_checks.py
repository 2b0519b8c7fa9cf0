"""What is kept of looks at nodes and of reconciles."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import checks, stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    NodeCheck,
    Operation,
    now,
)
from tests.unit.plugins.plugin_utils.registry.reconciled_fleet import EVERYTHING, NOTHING
from tests.unit.plugins.plugin_utils.registry.rows import add_node, any_key
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

NONE = (0, 0, 0, 0)
UNKNOWN = (None, None, None, None)


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    """Alice on nl1 with a phone and a tablet."""
    made = with_drift(controller)
    made.play("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}, {"name": "tablet"}])
    return made


def last(fleet: DriftController, name: str = NL) -> NodeCheck:
    with fleet.registry.read() as session:
        return checks.latest(session)[require_node(session, name).id]


def counts(check: NodeCheck) -> tuple[int | None, ...]:
    return check.missing_count, check.mismatched_count, check.unknown_count, check.interface_count


def seen(fleet: DriftController, name: str = NL) -> Any:
    with fleet.registry.read() as session:
        return require_node(session, name).last_seen


def unsee(fleet: DriftController) -> None:
    """As if no node had ever been reached."""
    with fleet.registry.write() as session:
        for node in session.scalars(select(Node)):
            node.last_seen = None


def disturb(fleet: DriftController) -> None:
    """One peer of Alice's is gone, one has another keepalive, and there is one that nobody knows."""
    (interface,) = fleet.fleet.nodes[NL].up.values()
    (phone, tablet) = interface["peers"]
    del interface["peers"][interface["peers"].index(phone)]
    tablet["persistent_keepalive"] = 7
    interface["peers"].append({"public_key": any_key(), "allowed_ips": ["10.9.9.9/32"]})


def test_a_look_leaves_what_it_found(fleet: DriftController) -> None:
    before = now()
    fleet.one("drift", node=NL)
    check = last(fleet)
    assert (check.kind, check.state, check.error, check.has_drift, counts(check)) == (
        "drift",
        "ok",
        None,
        False,
        NONE,
    )
    assert before <= check.at <= now()
    assert check.milliseconds is not None
    assert 0 <= check.milliseconds < 600_000
    (operation,) = (one for one in fleet.rows(Operation) if one.kind == "drift")
    assert check.operation_id == operation.id
    disturb(fleet)
    found = fleet.report(NL)
    check = last(fleet)
    assert (check.has_drift, counts(check)) == (True, (1, 1, 1, found["summary"]["interface_count"]))
    assert checks.total(check) == found["summary"]["total_issues"]


@pytest.mark.parametrize(
    ("weather", "state", "told"),
    [
        (Weather.UNREACHABLE, "unreachable", "is down"),
        (Weather.LOST, "unreachable", "closed by remote host"),
        (Weather.CRASHES, "failed", "cannot be read"),
    ],
)
@pytest.mark.parametrize("kind", ["drift", "reconcile"])
def test_one_that_fails_is_kept_too(
    fleet: DriftController, weather: Weather, state: str, told: str, kind: str
) -> None:
    unsee(fleet)
    fleet.fleet.nodes[NL].weather = weather
    fleet.one(kind, node=NL)
    check = last(fleet)
    assert (check.kind, check.state, check.has_drift, counts(check)) == (kind, state, None, UNKNOWN)
    assert told in str(check.error)
    # Seen is what has answered, if only that it cannot.
    assert (seen(fleet) is None) == (state == "unreachable")


@pytest.mark.parametrize("kind", ["drift", "reconcile"])
def test_a_node_is_seen_when_it_answers(fleet: DriftController, kind: str) -> None:
    unsee(fleet)
    before = now()
    fleet.one(kind, node=NL)
    assert before <= seen(fleet) <= now()
    assert seen(fleet, DE) is None


def test_a_look_at_the_fleet_leaves_one_for_each_node(fleet: DriftController) -> None:
    fleet.fleet.nodes[FR].weather = Weather.UNREACHABLE
    with fleet.registry.write() as session:
        require_node(session, DE).enabled = False
    fleet.play("drift")
    with fleet.registry.read() as session:
        names = {node.id: node.name for node in session.scalars(select(Node))}
        assert {names[number]: one.state for number, one in checks.latest(session).items()} == {
            NL: "ok",
            FR: "unreachable",
        }
        assert list(checks.latest(session, [require_node(session, NL).id])) == [require_node(session, NL).id]


def test_how_it_went_could_not_be_written_down(fleet: DriftController) -> None:
    """The step on the node failed by itself: the last step of the run notices."""
    fleet.begin("drift", None, False, {"node": NL})
    (run_id,) = (one.run_id for one in fleet.rows(Operation) if one.kind == "drift")
    fleet.tell({"id": run_id, "operation": "drift", "hosts": [NL, DE, FR], "nodes": [NL]})
    assert (last(fleet).state, last(fleet).has_drift) == ("failed", None)
    assert "could not be written down" in str(last(fleet).error)


def test_check_mode_leaves_nothing(fleet: DriftController) -> None:
    fleet.play("drift", node=NL, check=True)
    fleet.play("reconcile", node=NL, check=True, **EVERYTHING)
    assert fleet.rows(NodeCheck) == []


@pytest.mark.parametrize(
    ("switches", "left"),
    [
        (EVERYTHING, (0, 0, 0)),
        ({**NOTHING, "reconcile_missing": True}, (0, 1, 1)),
        ({**NOTHING, "reconcile_mismatched": True}, (1, 0, 1)),
        ({**EVERYTHING, "max_removals": 0}, (0, 0, 1)),
    ],
)
def test_a_reconcile_leaves_what_is_left(
    fleet: DriftController, switches: dict[str, Any], left: tuple[int, ...]
) -> None:
    disturb(fleet)
    fleet.one("reconcile", node=NL, **switches)
    check = last(fleet)
    assert (check.kind, check.state, counts(check)[:3]) == ("reconcile", "ok", left)
    assert check.has_drift is any(left)
    # A look finds the same.
    found = fleet.report(NL)["summary"]
    assert (found["missing_count"], found["mismatched_count"], found["unknown_count"]) == left
    assert counts(last(fleet))[:3] == left


@pytest.mark.parametrize("switches", [EVERYTHING, {**NOTHING, "remove_unknown": True}])
def test_what_is_left_of_whole_interfaces(fleet: DriftController, switches: dict[str, Any]) -> None:
    fleet.fleet.nodes[NL].up.clear()
    fleet.one("reconcile", node=NL, **switches)
    check = last(fleet)
    found = fleet.report(NL)["summary"]
    assert (check.has_drift, counts(check)) == (last(fleet).has_drift, counts(last(fleet)))
    assert checks.total(check) == found["total_issues"]
    assert check.has_drift is not switches["reconcile_missing"]


def test_the_last_ones_of_each_node_are_kept(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checks.VARIABLE, "3")
    with controller.registry.write() as session:
        nodes = [require_node(session, name) for name in (NL, DE)]
        for number in range(5):
            for node in nodes[: 1 if number < 3 else 2]:
                operation = Operation(id=f"{node.name} {number}", kind="drift", node_id=node.id)
                checks.note(
                    session, operation, node, stages.Outcome(stages.FAILED, error="x" * 5000), {"a": 1}
                )
    with controller.registry.read() as session:
        assert [one.operation_id for one in checks.recent(session, nodes[0].id, 10)] == [
            f"{NL} 4",
            f"{NL} 3",
            f"{NL} 2",
        ]
        assert [one.operation_id for one in checks.recent(session, nodes[1].id, 1)] == [f"{DE} 4"]
        assert {len(str(one.error)) for one in session.scalars(select(NodeCheck))} == {1000}
        assert {number: one.operation_id for number, one in checks.latest(session).items()} == {
            node.id: f"{node.name} 4" for node in nodes
        }


@pytest.mark.parametrize(
    ("said", "number"),
    [("7", 7), ("0", 1), ("", 1000), ("many", 1000), ("-1", 1000), ("9" * 30, 1000)],
)
def test_how_many_are_kept(monkeypatch: pytest.MonkeyPatch, said: str, number: int) -> None:
    monkeypatch.setenv(checks.VARIABLE, said)
    assert checks.kept() == number


def test_a_node_that_goes_takes_its_checks_along(controller: Controller) -> None:
    with controller.registry.write() as session:
        node = add_node(session, "es1.example.com")
        checks.note(session, Operation(id="one", kind="drift"), node, stages.Outcome(stages.DONE), None)
        session.delete(node)
    assert controller.rows(NodeCheck) == []


def test_it_is_cheap_however_many_there_are(controller: Controller) -> None:
    """The last check of each node is found along the index: a step for each node, none for each check."""
    with controller.registry.write() as session:
        for name in (NL, DE, FR):
            number = require_node(session, name).id
            session.add_all(
                NodeCheck(node_id=number, kind="drift", state="ok", at=now() - timedelta(minutes=count))
                for count in range(300)
            )
    statements: list[str] = []
    event.listen(
        controller.registry.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    with controller.registry.read() as session:
        assert len(checks.latest(session)) == 3
    assert sum("node_check" in one for one in statements) == 1
    if controller.registry.engine.dialect.name == "sqlite":
        with controller.registry.engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statements[-1]}").all())
        assert "USING COVERING INDEX ix_node_check_node_id_id" in plan
        assert "SCAN node_check" not in plan
