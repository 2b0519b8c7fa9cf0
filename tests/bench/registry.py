"""The playbooks of operations on a registry of any size: what they cost beside the bare work.

SQLite, as whoever has configured nothing has it. Each comparison has a registry of its own under var/bench/data.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import operations
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.bench import fleet_data, playbook
from tests.bench.side_by_side import Comparison, Figure, compare
from tests.lab.fleet import ROOT, Lab

CUSTOMER = "customer{}@example.com"


class Bench:
    """A registry that knows the lab's nodes, and playbooks run on it as an operator does."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.lab = lab
        self.folder = folder
        self.url = f"sqlite:///{folder / 'registry.db'}"
        self.inventory = folder / "registry.yml"
        self.inventory.write_text("plugin: vpnfleet.wireguard.registry\n", encoding="utf-8")
        self.inventories = [lab.inventory, self.inventory]
        self.variables: dict[str, str] = {}  # more of the environment
        with self.open() as registry, registry.write() as session:
            for number, node in enumerate(lab.nodes, 1):
                session.add(
                    Node(
                        name=node.name,
                        ansible_host=node.address,
                        endpoint=node.address,
                        country="DE",
                        dns_name=f"{node.name}.example.com",
                        ip_pool_cidr="10.64.0.0/10",
                        ip6_pool_cidr=f"fd64:{number:x}::/48",
                    )
                )

    @contextmanager
    def open(self) -> Iterator[Registry]:
        registry = open_registry(self.url)
        try:
            yield registry
        finally:
            registry.close()

    def run(self, name: str, *, changed: bool | None = None, **asked: Any) -> None:
        """Run one of the playbooks; RuntimeError when it fails, or when it changed something unlike `changed`."""
        given = self.folder / "asked.json"
        given.write_text(json.dumps(asked), encoding="utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ansible", "playbook"),
                *(word for path in self.inventories for word in ("-i", str(path))),
                *("-e", f"@{given}"),
                str(ROOT / "playbooks" / f"{name}.yml"),
            ],
            cwd=ROOT,
            env={**self.lab.ansible_env(), "VPNFLEET_DATABASE_URL": self.url, **self.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found = any("changed=0 " not in line for line in done.stdout.splitlines() if " changed=" in line)
        if done.returncode != 0 or (changed is not None and found != changed):
            raise RuntimeError(f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")


def disconnect(lab: Lab, folder: Path, runs: int) -> Comparison:
    """One instance disconnected by the playbook, against a play with one module task that takes one down."""
    bench = Bench(lab, folder / "disconnect")
    entry = fleet_data.instance("wgb0", 52000, "10.128.0.0/24", 1)
    bare = fleet_data.write(folder / "disconnect" / "bare.json", [entry])
    module = "vpnfleet.wireguard.wg_instance"
    up = playbook.play(folder, "bare_up", {module: {"src": str(bare)}})
    down = playbook.play(folder, "bare_down", {module: {"name": "wgb0", "state": "disconnected"}})

    def between() -> None:
        bench.run("provision", instance=CUSTOMER.format(0), node="node1", peers=[{"name": "laptop"}])
        playbook.run(lab, up)

    result = compare(
        "disconnect_one_instance",
        1.6,
        (
            "disconnect.yml of one instance",
            lambda: bench.run("disconnect", changed=True, instance=CUSTOMER.format(0)),
        ),
        (
            "a play with one module task, wg_instance state=disconnected, on the same node",
            lambda: playbook.run(lab, down, changed=True),
        ),
        runs,
        between=between,
    )
    bench.run("remove", instance=CUSTOMER.format(0))
    return result


def remove(lab: Lab, folder: Path, runs: int) -> Comparison:
    """100 instances of one node removed in one run, against one of them."""
    bench = Bench(lab, folder / "remove")
    everybody = [CUSTOMER.format(number) for number in range(100)]

    def between() -> None:
        bench.run("provision", instances=everybody, node="node1", peers=[{"name": "laptop"}])
        bench.run("provision", instance="alone@example.com", node="node1", peers=[{"name": "laptop"}])

    result = compare(
        "remove_100_instances",
        5.0,
        (
            "remove.yml of 100 instances on one node",
            lambda: bench.run("remove", changed=True, instances=everybody),
        ),
        (
            "remove.yml of one of them",
            lambda: bench.run("remove", changed=True, instance="alone@example.com"),
        ),
        min(runs, 5),
        between=between,
    )
    bench.run("remove", instance="alone@example.com")
    return result


def drift(lab: Lab, folder: Path, runs: int) -> Comparison:
    """The drift of a node with 2,000 peers, in a registry of 100 nodes with 200,000, against this node alone."""
    small = Bench(lab, folder / "drift_one_node")
    everybody = [{"instance": CUSTOMER.format(number)} for number in range(20)]
    small.run("provision", instances=everybody, node="node1", peers=[])
    with small.open() as registry, registry.write() as session:
        for instance in session.query(Instance):
            _add_peers(session.connection(), instance.id)
    small.run("reconcile", node="node1", changed=True)
    big = Bench(lab, folder / "drift_100_nodes")
    for path in (folder / "drift_one_node").glob("registry.*"):
        if path.suffix in (".db", ".key", ".db-wal", ".db-shm"):
            shutil.copy(path, folder / "drift_100_nodes" / path.name)
    with big.open() as registry, registry.write() as session:
        for number in range(2, 101):
            node = Node(
                name=f"other{number}",
                ansible_host="192.0.2.1",
                ip_pool_cidr="10.64.0.0/10",
                ip6_pool_cidr=f"fd65:{number:x}::/48",
            )
            session.add(node)
            session.flush()
            for place in range(20):
                instance = Instance(
                    name=f"customer{number}-{place}@example.com",
                    node_id=node.id,
                    listen_port=51820 + place,
                    applied=True,
                    private_key=fleet_data.key(),
                    public_key=fleet_data.key(),
                    subnet=f"10.{128 + number}.{place}.0/24",
                    subnet6=f"fd65:{number:x}:0:{place:x}::/64",
                )
                session.add(instance)
                session.flush()
                _add_peers(session.connection(), instance.id)
    result = compare(
        "drift_in_a_registry_of_100_nodes",
        1.3,
        (
            "drift.yml of one node with 2,000 peers, 100 nodes and 200,000 peers in the registry",
            lambda: big.run("drift", node="node1"),
        ),
        ("the same with this node alone in the registry", lambda: small.run("drift", node="node1")),
        runs,
    )
    small.run("remove", instances=[one["instance"] for one in everybody])
    return result


def allocation(lab: Lab, folder: Path, runs: int) -> list[Figure]:
    """10,000 peers of one instance: addresses, keys, rows; and the 10,000 after them."""
    bench = Bench(lab, folder / "allocation")
    seconds: dict[str, list[float]] = {"first": [], "next": []}
    for number in range(min(runs, 5)):
        for name, start in (("first", 0), ("next", 10_000)):
            request = {
                "instance": CUSTOMER.format(number),
                "prefix_length": 16,
                "peers": [
                    {"name": f"device{place}", "public_key": fleet_data.key()}
                    for place in range(start, start + 10_000)
                ],
            }
            run = operations.Run(new_id(), process_token(os.getpid()), "bench", frozenset({"node1"}))
            begun = time.perf_counter()
            with bench.open() as registry, registry.write() as session:
                operations.begin(session, "provision", [request], run)
            seconds[name].append(time.perf_counter() - begun)
            with bench.open() as registry, registry.write() as session:
                for operation in operations.of_run(session, run.id):
                    operation.state = "canceled"
    return [
        Figure(
            "allocate_10000_peers",
            "10,000 peers with keys of their own recorded in a new instance, the whole transaction",
            seconds["first"],
        ),
        Figure("allocate_10000_more_peers", "10,000 more in the same instance", seconds["next"]),
    ]


def transfer(lab: Lab, folder: Path, runs: int) -> Figure:
    """What a pinging device loses in a transfer, from its own log, after it has switched its endpoint."""
    bench = Bench(lab, folder / "transfer")
    device, name = lab.devices[0], CUSTOMER.format(0)
    private = device.run(["wg", "genkey"]).stdout.strip()
    public = device.run(["wg", "pubkey"], input=private).stdout.strip()
    bench.run("provision", instance=name, node="node1", peers=[{"name": "laptop", "public_key": public}])
    with bench.open() as registry, registry.read() as session:
        instance = session.query(Instance).one()
        key, port, subnet = instance.public_key, instance.listen_port, instance.subnet
        address = session.query(PeerAllowedIp.network).order_by(PeerAllowedIp.id).limit(1).scalar() or ""
    host = subnet.replace(".0/", ".1/").partition("/")[0]
    device.connect(private, address, key, f"{lab.nodes[0].address}:{port}", subnet, keepalive=25)
    interval, lost = 0.02, []
    for number in range(min(runs, 6)):
        target = lab.nodes[(number + 1) % 2]
        before = device.start_ping(host, interval)
        if not before.wait_for_reply():
            raise RuntimeError("the device gets no answer before the transfer")
        bench.run("transfer", changed=True, instance=name, node=target.name)
        before.stop()
        with bench.open() as registry, registry.read() as session:
            port = session.query(Instance.listen_port).scalar() or 0
        after = device.start_ping(host, interval)
        # As every client does with a changed configuration: down and up again, hence a new session at once.
        device.connect(private, address, key, f"{target.address}:{port}", subnet, keepalive=25)
        time.sleep(2)
        lost.append(after.stop().lost * interval)
    device.disconnect()
    bench.run("remove", instance=name)
    return Figure(
        "transfer_lost_after_the_switch",
        "packets that a device pinging every 20 ms loses around the switch of its endpoint, as seconds",
        lost,
        target=1.0,
    )


def _add_peers(connection: Any, instance_id: int) -> None:
    """A hundred peers, straight into the tables."""
    moment = now()
    rows = [
        {
            "id": new_id(),
            "instance_id": instance_id,
            "name": f"device{place}",
            "public_key": fleet_data.key(),
            "created_at": moment,
            "updated_at": moment,
        }
        for place in range(100)
    ]
    networks = [f"fd66:{instance_id:x}::{place + 2:x}/128" for place in range(100)]
    connection.execute(insert(Peer), rows)
    connection.execute(
        insert(PeerAllowedIp),
        [
            {"peer_id": row["id"], "instance_id": instance_id, "network": network}
            for row, network in zip(rows, networks, strict=True)
        ],
    )
