"""A lab whose nodes stand in a registry of its own, on SQLite or PostgreSQL, and the operations' playbooks run on it.

The fixtures are taken into a test module by assignment: `lab = registry_fleet.lab`, `fleet = registry_fleet.fleet`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from cryptography.fernet import Fernet
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Base,
    Instance,
    Node,
    Operation,
    Peer,
    Teardown,
)
from tests.e2e import wg_node
from tests.e2e.node_state import NodeState, read_state
from tests.e2e.started_playbook import Run, Started
from tests.lab import node as lab_node
from tests.lab.device import Device
from tests.lab.fleet import ROOT, Lab
from tests.postgres.server import PostgresServer

_CALLBACKS = Path(__file__).resolve().parent / "callback_plugins"
#: A node that is gone shall cost a test seconds, not half a minute. What is told of it stays the same.
IMPATIENT = {
    "ANSIBLE_TIMEOUT": "3",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=1 -o ServerAliveCountMax=3",
}


@dataclass
class RegistryFleet:
    """A lab and a registry that knows its nodes."""

    lab: Lab
    kind: str
    url: str
    folder: Path
    variables: dict[str, str]
    outputs: list[str] = field(default_factory=list)
    api_keys: dict[str, str] = field(default_factory=dict)  # by their scopes

    # -- running playbooks

    def environment(self) -> dict[str, str]:
        """With this registry in it, and nobody else's."""
        return {**_without_ours(self.lab.ansible_env()), **self.variables}

    def start(self, playbook: str, *arguments: str, wait_at: int = 0, **asked: Any) -> Started:
        """Start a playbook. `asked` are its extra vars; from a file, for everybody sees what is on a command line.

        `wait_at`: the number of a play, counted from 1, before which it waits to be let go, or killed.
        """
        path = self.folder / f"run-{time.monotonic_ns()}"
        given = path.with_suffix(".json")
        given.write_text(json.dumps(asked), encoding="utf-8")
        given.chmod(0o600)
        waits = {"ANSIBLE_CALLBACKS_ENABLED": "wait_at_play", "WAIT_AT_PLAY": f"{wait_at} {path}"}
        with path.with_suffix(".log").open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ansible", "playbook", *(["-e", f"@{given}"] if asked else [])),
                    *(*arguments, str(ROOT / "playbooks" / f"{playbook}.yml")),
                ],
                cwd=ROOT,
                env={
                    **self.environment(),
                    "ANSIBLE_INVENTORY": str(self.folder / "registry.yml"),
                    "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACKS),
                    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                    "ANSIBLE_NOCOLOR": "1",
                    "ANSIBLE_SHOW_CUSTOM_STATS": "1",
                    **(waits if wait_at else {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, path, self.outputs)

    def run(self, playbook: str, *arguments: str, **asked: Any) -> Run:
        """Run a playbook to its end, whatever that is."""
        return self.start(playbook, *arguments, **asked).finish()

    def done(self, playbook: str, *arguments: str, **asked: Any) -> Run:
        """Run one that has to succeed."""
        run = self.run(playbook, *arguments, **asked)
        assert run.code == 0, run.output
        return run

    def provision(self, nodes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Instances on nodes, by name, each with a peer of its own; what is told of them, by name."""
        wanted = [
            {"instance": name, "node": node, "peers": [{"name": "phone"}]} for name, node in nodes.items()
        ]
        return self.done("provision", instances=wanted).results

    # -- the registry

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        """The registry, opened by this process."""
        with mock.patch.dict(os.environ, {**_without_ours(os.environ), **self.variables}, clear=True):
            registry = open_registry(self.url, schema_required=True)
            try:
                yield registry
            finally:
                registry.close()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with self.registry() as registry, registry.read() as session:
            yield session

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables as the database holds them."""
        with self.read() as session:
            return {
                table.name: sorted(
                    (tuple(row) for row in session.execute(select(text("*")).select_from(table))), key=repr
                )
                for table in Base.metadata.sorted_tables
            }

    def desired(self) -> dict[str, list[tuple[Any, ...]]]:
        """The same without the audit, which keeps what was refused, too."""
        return {name: rows for name, rows in self.tables().items() if name != AuditEntry.__tablename__}

    def instance(self, name: str) -> Instance | None:
        """An instance, with its node and its private key."""
        with self.read() as session:
            found = session.scalar(select(Instance).where(Instance.name == name))
            if found is not None:
                _ = found.node.name, found.private_key
            return found

    def node_of(self, name: str) -> str:
        """The name of the node that an instance is on, as the registry has it."""
        found = self.instance(name)
        assert found is not None
        return found.node.name

    def operations(self, name: str) -> list[Operation]:
        """The operations on an instance, the oldest first."""
        with self.read() as session:
            query = select(Operation).where(Operation.instance_name == name)
            return list(session.scalars(query.order_by(Operation.created_at)))

    def unfinished(self) -> list[str]:
        """The operations that are neither done nor given up."""
        with self.read() as session:
            query = select(Operation).where(Operation.state.in_(("running", "pending")))
            return [f"{one.kind} of {one.instance_name} is {one.state}" for one in session.scalars(query)]

    def teardowns(self) -> list[tuple[str, str, str]]:
        """What is to be taken down: (node, interface, reason)."""
        with self.read() as session:
            query = select(Node.name, Teardown.interface, Teardown.reason).join(
                Teardown, Teardown.node_id == Node.id
            )
            return sorted((row[0], row[1], row[2]) for row in session.execute(query))

    def secrets(self) -> set[str]:
        """The private and preshared keys in the registry."""
        with self.read() as session:
            found = set(session.scalars(select(Instance.private_key)))
            for row in session.execute(select(Peer.private_key, Peer.preshared_key)):
                found.update(secret for secret in row if secret)
        return found

    def keys(self) -> set[str]:
        """What these are encrypted with: a variable of the environment, or a file beside the database."""
        found = set(self.variables.get("VPNFLEET_ENCRYPTION_KEY", "").split(","))
        found.update(path.read_text(encoding="ascii").strip() for path in self.folder.glob("*.key"))
        return found - {""}

    # -- the nodes

    @property
    def nodes(self) -> dict[str, lab_node.Node]:
        """The lab's nodes by name."""
        return {node.name: node for node in self.lab.nodes}

    def states(self, *of: str) -> dict[str, NodeState]:
        """What runs on the nodes, on all or on these."""
        return {name: read_state(node) for name, node in self.nodes.items() if not of or name in of}

    def places(
        self, interface: str, *of: str, states: Mapping[str, NodeState] | None = None
    ) -> dict[str, str]:
        """On which nodes (of all, or these) there is anything of an interface: `up`, or `left` for traces of it."""
        found = {}
        for name, state in (self.states(*of) if states is None else states).items():
            running, file, link = state.of(interface)
            if running is not None and running.up and file is not None:
                found[name] = "up"
            elif running is not None or file is not None or link is not None:
                found[name] = "left"
        return found

    def sessions(self) -> dict[str, int]:
        """How many commands were begun over SSH, by node: each call of a module is one."""
        return {
            name: node.read("/var/log/sshd.log").count("Starting session: command")
            for name, node in self.nodes.items()
        }


def names_of(*parts: str) -> list[str]:
    """Customers' names."""
    return [f"{part.replace(' ', '-')}@example.com" for part in parts]


def connect(
    device: Device, told: Mapping[str, Any], private_key: str, preshared_key: str | None = None
) -> str:
    """Connect a customer's device with what was published of the instance; returns the address to ping: the node's."""
    addresses = told["addresses"]
    device.connect(
        private_key,
        told["peers"][0]["allowed_ips"],
        told["public_key"],
        told["endpoint"],
        [address.rpartition("/")[0] + ("/128" if ":" in address else "/32") for address in addresses],
        preshared_key,
    )
    return str(addresses[0]).rpartition("/")[0]


@contextmanager
def registered(lab: Lab, kind: str, url: str, folder: Path) -> Iterator[RegistryFleet]:
    """Nodes without WireGuard in a fresh registry, and without it again at the end."""
    variables = {"VPNFLEET_DATABASE_URL": url, **IMPATIENT}
    if kind == "postgresql":  # SQLite has its key beside it
        variables["VPNFLEET_ENCRYPTION_KEY"] = Fernet.generate_key().decode()
    fleet = RegistryFleet(lab, kind, url, folder, variables)
    _write_inventory(lab, folder)
    for node in lab.nodes:
        wg_node.empty(node)
    with mock.patch.dict(os.environ, {**_without_ours(os.environ), **variables}, clear=True):
        registry = open_registry(url, schema_required=False)
        schema.upgrade(registry.engine)
        registry.close()
    with fleet.registry() as registry, registry.write() as session:
        for number, node in enumerate(lab.nodes, 1):
            session.add(
                Node(
                    name=node.name,
                    ansible_host=node.address,
                    endpoint=node.address,
                    ip_pool_cidr=f"10.{63 + number}.0.0/16",
                    ip6_pool_cidr=f"fd64:{number}::/48",
                    country=("Germany", "Netherlands", "France")[number - 1],
                    dns_name=f"{node.name}.example.com",
                )
            )
    yield fleet
    for device in lab.devices:
        device.disconnect()
    for node in lab.nodes:
        node.boot()
        wg_node.empty(node)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes and three devices, for one test module."""
    with Lab(name=f"r{os.getpid()}", nodes=3, devices=3) as lab:
        yield lab


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fleet(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryFleet]:
    """The lab in a registry: first on SQLite, then on PostgreSQL."""
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "sqlite":
        with registered(lab, "sqlite", f"sqlite:///{folder}/registry.db", folder) as fleet:
            yield fleet
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    with registered(lab, "postgresql", server.url(name), folder) as fleet:
        yield fleet
    server.drop_database(name)


@pytest.fixture(scope="module")
def sqlite_fleet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryFleet]:
    """The lab in a registry on SQLite, for what has nothing to do with the database."""
    folder = tmp_path_factory.mktemp("registry")
    with registered(lab, "sqlite", f"sqlite:///{folder}/registry.db", folder) as fleet:
        yield fleet


def _write_inventory(lab: Lab, folder: Path) -> None:
    """The registry's nodes as hosts, as in inventories/production; how they are reached is the lab's affair."""
    (folder / "registry.yml").write_text("plugin: vpnfleet.wireguard.registry\n", encoding="utf-8")
    (folder / "group_vars").mkdir()
    of_lab = yaml.safe_load(lab.inventory.read_text(encoding="utf-8"))
    (folder / "group_vars" / "nodes.yml").write_text(
        yaml.safe_dump(of_lab["nodes"]["vars"]), encoding="utf-8"
    )


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the registry that somebody may have set."""
    return {name: value for name, value in environment.items() if not name.startswith("VPNFLEET_")}
