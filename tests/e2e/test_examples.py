"""The examples of the modules' documentation do what they say, on a node and with a registry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from tests import documented
from tests.demo.fleet import Fleet
from tests.demo.playbook import Operator
from tests.documented import COLLECTION
from tests.e2e.ansible_run import Run, Task, finish_play, start_play
from tests.e2e.node_state import read_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer_key, private_key
from tests.lab.fleet import ROOT, Lab
from tests.lab.node import Node

INSTANCES: list[dict[str, Any]] = [
    {"name": "wg7", "listen_port": 51827, "addresses": ["10.7.0.1/24"], "purge_peers": True},
    {"name": "wg8", "addresses": ["10.8.0.1/24"]},
]
PEERS = [{"public_key": peer_key("laptop"), "allowed_ips": ["10.7.0.2/32"]}]


#: What runs on a node, what writes the registry, and what is a step of an operation: a test for each below.
ON_NODES = ("wg_instance", "wg_peer", "wg_info", "wg_drift")
OF_THE_REGISTRY = ("registry_schema", "registry_nodes")
OF_OPERATIONS = ("operation_begin", "operation_converge", "operation_report")
#: Steps of playbooks/drift.yml, reconcile.yml and agent.yml, which other tests run.
IN_PLAYBOOKS = ("operation_drift", "registry_agent")


def of(module: str) -> list[Task]:
    """A module's examples, as tasks."""
    return [dict(task) for document in documented.examples(module_file(module)) for task in document]


def module_file(name: str) -> Path:
    return COLLECTION / "plugins" / "modules" / f"{name}.py"


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    """A node without WireGuard."""
    empty(lab.nodes[0])
    yield lab.nodes[0]
    empty(lab.nodes[0])


def run(lab: Lab, node: Node, tasks: list[Task], folder: Path, **variables: Any) -> Run:
    """Run them all from `folder`; each must succeed."""
    done = finish_play(start_play(lab, node, tasks, folder, variables=variables), folder)
    assert [name for name, result in done.results.items() if result.failed] == [], done.output
    assert set(done.results) == {task["name"] for task in tasks}
    return done


def test_there_is_a_place_for_every_modules_examples() -> None:
    known = (*ON_NODES, *OF_THE_REGISTRY, *OF_OPERATIONS, *IN_PLAYBOOKS)
    assert sorted(known) == sorted(path.stem for path in documented.MODULES)


def test_those_of_what_runs_on_nodes(lab: Lab, node: Node, tmp_path: Path) -> None:
    written = {"wireguard_instances": [{**INSTANCES[0], "peers": PEERS}, INSTANCES[1]]}
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / f"{node.name}.json").write_text(json.dumps(written), encoding="utf-8")
    # What others presuppose comes first, what takes instances down last.
    instance = of("wg_instance")
    tasks = [*instance[:2], *of("wg_peer"), *of("wg_info"), *of("wg_drift"), *instance[2:]]
    used = {name for task in tasks for name in task if name.startswith(documented.NAME)}
    assert used == {f"{documented.NAME}.{one}" for one in ON_NODES}
    variables = {"vault_wg7_private_key": private_key("wg7"), "wireguard_instances": [INSTANCES[1]]}

    done = run(lab, node, tasks, tmp_path, **variables)

    assert done["Run one customer's instance"].changed
    assert done["Add a device"].changed
    assert done["Remove two devices and change a third by one call"].changed
    assert done["Look for drift"].answer["has_drift"]
    assert not done["See whether wg7 is gone for good, and whether there is anything else"].changed
    assert done["Put back what is missing and mend what differs; leave unknown peers alone"].changed
    assert done["Take an instance down so that it cannot come back on this node"].changed
    state = read_state(node)
    assert {name for name in state.interfaces if name.startswith("wg")} == {"wg7", "wg8"}
    assert list(state.interfaces["wg7"].peers) == [peer_key("laptop")]


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The lab's nodes as an operator writes them down, with a registry that is not there yet."""
    made = Fleet(lab, tmp_path)
    made.write()
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    for name in ("VPNFLEET_DATABASE_URL", "VPNFLEET_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VPNFLEET_DATABASE_URL", made.environment()["VPNFLEET_DATABASE_URL"])
    monkeypatch.setenv("VPNFLEET_ENCRYPTION_KEY", ",".join(keys))
    return made


def test_those_of_the_registry(lab: Lab, node: Node, fleet: Fleet, tmp_path: Path) -> None:
    another = {"name": "nl1.example.com", "endpoint": "192.0.2.21", "ip_pool_cidr": "10.65.0.0/16"}
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump({"nodes": [another]}), encoding="utf-8")
    schema, rotation = of("registry_schema")
    here, from_file = of("registry_nodes")
    # The one changes a node that the other makes.
    done = run(lab, node, [schema, from_file, here, rotation], tmp_path)
    assert all(done[task["name"]].changed for task in (schema, from_file, here))
    assert fleet.nodes_known() == ["de1.example.com (DE)", "nl1.example.com (None)"]

    inventory = documented.examples(COLLECTION / "plugins" / "inventory" / "registry.py")
    for number, document in enumerate(inventory):
        source = tmp_path / f"{number}-registry.yml"
        source.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = [sys.executable, "-m", "ansible", "inventory", "--inventory", str(source), "--list"]
        told = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        hosts = json.loads(told)["_meta"]["hostvars"]
        assert sorted(hosts) == ["de1.example.com", "nl1.example.com"][: 2 - number]


def test_those_of_operations(node: Node, fleet: Fleet, tmp_path: Path) -> None:
    (begin,) = documented.examples(module_file("operation_begin"))
    everywhere = {"hosts": "localhost, all", "gather_facts": False}
    plays = [
        *begin,
        {"name": "Converge", "hosts": node.name, "gather_facts": False, "tasks": of("operation_converge")},
        {"name": "Report", **everywhere, "tasks": of("operation_report")},
    ]
    playbook = tmp_path / "disconnect.yml"
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    environment = fleet.environment()
    operator = Operator(fleet.inventory, environment, tmp_path, lambda _task: None)
    operator.run("nodes", "-e", f"nodes_file={fleet.nodes}")
    operator.run("provision", "-e", "instance=user@example.com", "-e", f"node={node.name}")
    assert "wg1" in read_state(node).interfaces

    command = [
        sys.executable,
        "-m",
        "ansible",
        "playbook",
        "--inventory",
        str(fleet.inventory),
        str(playbook),
    ]
    done = subprocess.run(
        [*command, "-e", "instance=user@example.com"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "wg1" not in read_state(node).interfaces


def test_those_of_the_roles_that_run_instances(lab: Lab, node: Node, tmp_path: Path) -> None:
    """Node and instance: the play of their READMEs, with the variables that the second one shows."""
    (prepare,) = documented.blocks(COLLECTION / "roles/node/README.md")
    run_instances, variables = documented.blocks(COLLECTION / "roles/instance/README.md")[:2]
    playbook = tmp_path / "site.yml"
    playbook.write_text(yaml.safe_dump([*prepare, *run_instances], sort_keys=False), encoding="utf-8")
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(lab.inventory.read_text(encoding="utf-8"), encoding="utf-8")
    described = tmp_path / "host_vars" / f"{node.name}.yml"
    described.parent.mkdir()
    keys = {"vault_wg7_private_key": private_key("wg7")}
    described.write_text(yaml.safe_dump({**variables, **keys}), encoding="utf-8")
    command = [sys.executable, "-m", "ansible", "playbook", "--inventory", str(inventory), str(playbook)]

    done = subprocess.run(
        [*command, "--limit", node.name],
        cwd=ROOT, env=lab.ansible_env(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    state = read_state(node)
    assert {name for name in state.interfaces if name.startswith("wg")} == {"wg7"}
    asked = variables["wireguard_instances"][0]["peers"]
    assert sorted(state.interfaces["wg7"].peers) == sorted(peer["public_key"] for peer in asked)
