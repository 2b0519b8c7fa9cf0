"""What must hold between the registry and the nodes: at every moment, and when all is done."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session, undefer

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    peers_of,
    present,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Instance,
    Node,
    Operation,
    Peer,
    PeerAllowedIp,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, meaning


def problems(registry: Registry, fleet: SimulatedFleet) -> list[str]:
    """What must not be at any moment, wherever a run was killed and whatever nodes refuse."""
    with registry.read() as session:
        return [
            *_unknown_interfaces(session, fleet),
            *_wrongly_believed(session, fleet),
            *_given_twice(session),
            *_held_twice(session),
        ]


def left_to_do(registry: Registry, fleet: SimulatedFleet, name: str | None = None) -> list[str]:
    """What is not as it should be when every node could be reached: of one customer, or of all."""
    with registry.read() as session:
        instances = session.scalars(select(Instance)).all()
        teardowns = session.scalars(select(Teardown)).all()
        pending = session.scalars(select(Operation).where(Operation.state.in_(("running", "pending")))).all()
        whose = {row.interface: row.instance_name for row in teardowns}
        whose |= {one.interface: one.name for one in instances}
        wanted = wanted_up(session)
    actual = {(node, interface): one for node, interface, one in fleet.everything()}
    found = [(whose.get(where[1]), f"{where} should be up") for where in wanted.keys() - actual.keys()]
    found += [(whose.get(where[1]), f"{where} should not be up") for where in actual.keys() - wanted.keys()]
    found += [
        (whose.get(where[1]), f"{where} is not as it should be")
        for where in wanted.keys() & actual.keys()
        if meaning(wanted[where]) != meaning(actual[where])
    ]
    found += [
        (row.instance_name, f"{row.interface} waits to be taken down ({row.reason})") for row in teardowns
    ]
    found += [(one.name, f"{one.interface} is not confirmed") for one in instances if not one.applied]
    found += [(one.instance_name, f"{one.kind} is {one.state}") for one in pending]
    return sorted(f"{owner}: {problem}" for owner, problem in found if name in (None, owner))


def assert_all_is_well(registry: Registry, fleet: SimulatedFleet) -> None:
    """Both of them at once."""
    assert problems(registry, fleet) == []
    assert left_to_do(registry, fleet) == []


def wanted_up(session: Session) -> dict[tuple[str, str], dict[str, Any]]:
    """By node and interface, what should be up, as wg_instance takes it."""
    instances = session.scalars(
        select(Instance).where(Instance.state == "present").options(undefer(Instance.private_key))
    ).all()
    peers = peers_of(session, [one.id for one in instances])
    return {
        (one.node.name, one.interface): present(one, one.node, one.listen_port, peers[one.id])
        for one in instances
    }


def told_secrets(registry: Registry, *said: object) -> list[str]:
    """The private and preshared keys that can be read in what was said, or in a column that is not encrypted."""
    with registry.read() as session:
        keys = set(session.scalars(select(Instance.private_key)))
        for column in (Peer.private_key, Peer.preshared_key, Node.agent_secret, Node.agent_secret_next):
            keys |= {key for key in session.scalars(select(column)) if key}
        stored = [
            str(value)
            for table in Base.metadata.sorted_tables
            for row in session.execute(text(f'SELECT * FROM "{table.name}"'))  # noqa: S608
            for value in row
        ]
    assert keys
    heard = "\n".join([*stored, *(part for one in said for part in (repr(one), str(one), _json(one)))])
    return sorted(key for key in keys if key in heard)


def _json(value: object) -> str:
    return json.dumps(value, default=repr)


def _unknown_interfaces(session: Session, fleet: SimulatedFleet) -> list[str]:
    known = {(one.node.name, one.interface) for one in session.scalars(select(Instance))}
    nodes = {node.id: node.name for node in session.scalars(select(Node))}
    known |= {(nodes[row.node_id], row.interface) for row in session.scalars(select(Teardown))}
    return [
        f"{interface} is up on {node} and the registry knows nothing of it"
        for node, interface, _wanted in fleet.everything()
        if (node, interface) not in known
    ]


def _wrongly_believed(session: Session, fleet: SimulatedFleet) -> list[str]:
    """What nodes are said to have confirmed and is not so."""
    wanted = wanted_up(session)
    found = []
    for one in session.scalars(select(Instance).where(Instance.applied)):
        there = fleet.nodes[one.node.name].up.get(one.interface)
        should = wanted.get((one.node.name, one.interface))
        if (None if there is None else meaning(there)) != (None if should is None else meaning(should)):
            found.append(f"{one.interface} ({one.state}) is believed to be applied on {one.node.name}")
    return found


def _given_twice(session: Session) -> list[str]:
    instances = session.scalars(select(Instance)).all()
    teardowns = session.scalars(select(Teardown)).all()
    held: list[Instance | Teardown] = [*instances, *teardowns]
    ports = Counter((one.node_id, one.listen_port) for one in held)
    ids = {one.interface for one in instances}
    # What waits to be taken down of an instance that is elsewhere has the same subnets; nobody else's may.
    subnets = Counter(one.subnet for one in instances) + Counter(
        row.subnet for row in {row.interface: row for row in teardowns}.values() if row.interface not in ids
    )
    addresses = Counter(session.scalars(select(PeerAllowedIp.network)))
    places = Counter((one.node_id, one.interface) for one in held)
    return [
        f"{value} is given {count} times"
        for counter in (ports, subnets, addresses, places)
        for value, count in counter.items()
        if count > 1
    ]


def _held_twice(session: Session) -> list[str]:
    held = select(Operation.instance_name).where(
        Operation.state == "running", Operation.instance_name.is_not(None)
    )
    running = Counter(session.scalars(held))
    return [f"{count} runs are at work on {name}" for name, count in running.items() if count > 1]
