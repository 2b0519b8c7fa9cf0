"""What is still to be taken down, and who does it."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import stages, teardown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
    new_id,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_teardown, left_of
from tests.unit.plugins.plugin_utils.registry.simulated_names import DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead


def an_operation(instance: Instance, owner: str = "", state: str = "running") -> Operation:
    return Operation(id=new_id(), kind="remove", instance_name=instance.name, state=state, owner=owner)


def node(controller: Controller, name: str) -> Node:
    with controller.registry.read() as session:
        return session.scalars(select(Node).where(Node.name == name)).one()


def test_one_that_is_noted_already_is_taken_over(controller: Controller) -> None:
    with controller.registry.write() as session:
        where = session.merge(node(controller, NL))
        instance = add_instance(session, where)
        first, second = an_operation(instance, state="canceled"), an_operation(instance)
        session.add_all([first, second])
        session.flush()
        row = teardown.record(session, where.id, instance, 1000, first, teardown.RESERVED)
        row.attempts, row.error = 3, "refused"
        session.flush()
        assert teardown.record(session, where.id, instance, 2000, second, teardown.REMOVED) is row
        session.flush()
        found = teardown.find(session, where.id, instance.interface)
        assert found is row
        assert (found.listen_port, found.operation_id, found.reason, found.error) == (
            2000,
            second.id,
            "removed",
            None,
        )
        assert (row.subnet, row.subnet6) == (instance.subnet, instance.subnet6)
        assert teardown.find(session, node(controller, DE).id, instance.interface) is None


def test_an_operation_takes_what_is_left_of_its_instance_and_of_nobody_else(controller: Controller) -> None:
    with controller.registry.write() as session:
        nl, de = session.merge(node(controller, NL)), session.merge(node(controller, DE))
        alice, bob = add_instance(session, nl), add_instance(session, nl)
        operation = an_operation(alice)
        session.add(operation)
        session.flush()
        there = add_teardown(session, de, **left_of(alice, teardown.TRANSFERRED))
        older = add_teardown(session, nl, instance_name=alice.name)
        add_teardown(session, de, **left_of(bob, teardown.TRANSFERRED))
        assert teardown.claim(session, operation, "apply", besides=[older.id]) == [there]
        assert stages.nodes(operation, "apply") == [DE]
        assert teardown.claim(session, operation, "apply") == [there, older]
        session.flush()
        assert teardown.claimed(session, [operation], de) == {operation.id: [there]}
        assert teardown.claimed(session, [], de) == {}


def test_what_a_run_is_at_work_on_is_not_abandoned(controller: Controller) -> None:
    with controller.registry.write() as session:
        where = session.merge(node(controller, NL))
        instances = [add_instance(session, where) for _ in range(4)]
        owners = [process_token(1), token_of_the_dead(), "", None]
        states = ["running", "running", "pending", "running"]
        held = [
            an_operation(instance, owner or "", state)
            for instance, owner, state in zip(instances, owners, states, strict=True)
        ]
        session.add_all(held[:3])
        session.flush()
        rows = [
            add_teardown(session, where, operation_id=operation.id if operation in held[:3] else None)
            for operation in held
        ]
        assert teardown.abandoned(session, where) == rows[1:]


def test_it_goes_when_it_is_done_and_remembers_why_not(controller: Controller) -> None:
    with controller.registry.write() as session:
        row = add_teardown(session, session.merge(node(controller, NL)))
        teardown.settle(session, row, stages.Outcome(stages.UNREACHABLE, error="down"))
        teardown.settle(session, row, stages.Outcome(stages.FAILED, error="refused"))
        assert (row.attempts, row.error) == (2, "refused")
        teardown.settle(session, row, stages.Outcome(stages.DONE))
        assert session.scalars(select(Teardown)).all() == []


def test_it_outlives_its_operation(controller: Controller) -> None:
    with controller.registry.write() as session:
        where = session.merge(node(controller, NL))
        operation = an_operation(add_instance(session, where))
        session.add(operation)
        session.flush()
        row = add_teardown(session, where, operation_id=operation.id)
        session.delete(operation)
        session.flush()
        session.refresh(row)
        assert row.operation_id is None


@pytest.mark.parametrize("same", ["interface", "listen_port"])
def test_a_node_has_each_interface_and_port_once(controller: Controller, same: str) -> None:
    value = "wg7" if same == "interface" else 7
    with controller.registry.write() as session:
        add_teardown(session, session.merge(node(controller, NL)), **{same: value})
        add_teardown(session, session.merge(node(controller, DE)), **{same: value})
    with pytest.raises(IntegrityError), controller.registry.write() as session:
        add_teardown(session, session.merge(node(controller, NL)), **{same: value})
