"""What a look at the fleet, and at one node with very many peers, costs beside the bare reading of the same nodes."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import yaml
from sqlalchemy import insert

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    new_id,
    now,
)
from tests.bench import fleet_data, http, playbook
from tests.bench.registry import CUSTOMER, Bench
from tests.bench.side_by_side import Comparison, Measured, compare, compare_all
from tests.lab.fleet import ROOT, Lab

NODES = 50
PEERS = 100
BIG = 50_000
_VENV = ROOT / "var" / "venv-bench"
#: What pyinfra's SSH has, and OpenSSH does without its quantum-safe exchange, which costs 0.1 s of a processor.
_CURVE = "-o KexAlgorithms=curve25519-sha256"


def fleet(_lab: Lab, folder: Path, runs: int) -> list[Comparison]:
    """50 nodes, on each one instance (one wireguard-go) with 100 peers: drift.yml of all, and the same asked for over
    HTTP, against pyinfra reading the dump of all."""
    pyinfra = _pyinfra()
    fresh = Lab(name="bench-fleet", nodes=NODES, devices=0)
    fresh.down()  # one that was interrupted has other peers
    with fresh as lab, tempfile.TemporaryDirectory() as sockets:
        bench = Bench(lab, folder / "fleet")
        _one_instance_each(bench)
        _fill(bench, PEERS)
        bench.run("reconcile", changed=True, nodes=[node.name for node in lab.nodes])
        bench.variables["ANSIBLE_SSH_CONTROL_PATH_DIR"] = sockets
        inventory = _inventory_of_pyinfra(lab, bench.folder / "pyinfra_inventory.py")
        given = yaml.safe_load(lab.inventory.read_text(encoding="utf-8"))["nodes"]["vars"]
        bench.inventories = [bench.folder / "variables.yml", bench.inventory]
        bench.inventories[0].write_text(yaml.safe_dump({"nodes": {"vars": given}}), encoding="utf-8")

        def drift() -> None:
            bench.run("drift", changed=False)

        def drift_with_curve() -> None:
            bench.variables["ANSIBLE_SSH_EXTRA_ARGS"] = _CURVE
            drift()
            del bench.variables["ANSIBLE_SSH_EXTRA_ARGS"]

        def read() -> None:
            command = [pyinfra, str(inventory), "fact", "server.Command", "command=wg show all dump"]
            done = subprocess.run(
                command,
                cwd=bench.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
            found = (done.stdout + done.stderr).count("/128")
            if found < NODES * PEERS:
                raise RuntimeError(f"pyinfra has read {found} peers: {done.stderr[-2000:]}")

        def hang_up() -> None:
            for path in Path(sockets).iterdir():
                subprocess.run(["ssh", "-O", "exit", "-S", str(path), "-"], capture_output=True, check=False)

        with http.serving(bench) as server, server.client() as client:

            def ask() -> None:
                answer = client.get("/api/drift/nodes")
                if answer.status_code != 200:
                    raise RuntimeError(answer.text[-3000:])
                summary = answer.json()["data"]["summary"]
                if summary != {**dict.fromkeys(summary, 0), "total_nodes": NODES}:
                    raise RuntimeError(f"the look has found {summary}")

            what = f"of {NODES} nodes with {PEERS} peers each, registry included"
            again = "SSH's connections are open from the last run (ControlPersist)"
            return compare_all(
                [
                    Measured(
                        "drift_of_50_nodes_first_time",
                        1.0,
                        f"drift.yml {what}; no connection is open, the same key exchange as pyinfra's",
                        drift_with_curve,
                        hang_up,
                    ),
                    Measured("drift_of_50_nodes_again", 1.0, f"drift.yml {what}; {again}", drift),
                    Measured(
                        "drift_of_50_nodes_over_http", 1.0, f"GET /api/drift/nodes {what}; {again}", ask
                    ),
                ],
                (f"pyinfra reading wg show all dump from the same {NODES} nodes over SSH", read),
                min(runs, 5),
            )


def big_node(lab: Lab, folder: Path, runs: int) -> Comparison:
    """One node with 50,000 peers in one instance: drift.yml of it, against a play with one task, raw: wg show dump."""
    bench = Bench(lab, folder / "big_node")
    name = CUSTOMER.format(0)
    bench.run("provision", instance=name, node="node1", peers=[], prefix_length=16)
    _fill(bench, BIG)
    bench.run("reconcile", node="node1", changed=True)
    raw = playbook.play(folder, "raw_big", playbook.RAW_DUMP)
    result = compare(
        "drift_of_50000_peers",
        2.0,
        (
            f"drift.yml of one node with {BIG:,} peers, registry included",
            lambda: bench.run("drift", node="node1"),
        ),
        (
            "a play with one task, raw: wg show all dump, on the same node",
            lambda: playbook.run(lab, raw),
        ),
        runs,
    )
    bench.run("remove", instance=name)
    return result


def _one_instance_each(bench: Bench) -> None:
    """On each node an instance without peers, straight into the tables."""
    with bench.open() as registry, registry.write() as session:
        for number, node in enumerate(session.query(Node).order_by(Node.name), 64):
            private, public = new_key_pair()
            session.add(
                Instance(
                    name=f"{node.name}@example.com",
                    node_id=node.id,
                    listen_port=51820,
                    private_key=private,
                    public_key=public,
                    subnet=f"10.{number}.0.0/24",
                    subnet6=f"{node.ip6_pool_cidr.partition('/')[0]}/64",
                )
            )


def _fill(bench: Bench, number: int) -> None:
    """Peers in each instance, straight into the tables, with an address of each family out of its subnets as the
    registry gives them."""
    moment = now()
    with bench.open() as registry, registry.write() as session:
        for instance in session.query(Instance):
            ids = [new_id() for _ in range(number)]
            session.connection().execute(
                insert(Peer),
                [
                    {
                        "id": peer_id,
                        "instance_id": instance.id,
                        "name": f"device{place}",
                        "public_key": fleet_data.key(),
                        "created_at": moment,
                        "updated_at": moment,
                    }
                    for place, peer_id in enumerate(ids)
                ],
            )
            session.connection().execute(
                insert(PeerAllowedIp),
                [
                    {"peer_id": peer_id, "instance_id": instance.id, "network": network}
                    for place, peer_id in enumerate(ids, 2)
                    for network in (
                        f"{instance.subnet.rpartition('.')[0].rpartition('.')[0]}.{place >> 8}.{place & 255}/32"
                        if number > 200
                        else f"{instance.subnet.rpartition('.')[0]}.{place}/32",
                        f"{instance.subnet6.partition('/')[0]}{place:x}/128",
                    )
                ],
            )


def _pyinfra() -> str:
    """Its program, in an environment of its own."""
    subprocess.run(
        [str(ROOT / "scripts" / "venv"), str(_VENV), str(ROOT / "requirements" / "bench.txt")],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return str(_VENV / "bin" / "pyinfra")


def _inventory_of_pyinfra(lab: Lab, path: Path) -> Path:
    reached = {
        "ssh_user": "root",
        "ssh_key": str(lab.ssh_key),
        "ssh_known_hosts_file": str(lab.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    path.write_text(f"hosts = {[(node.address, reached) for node in lab.nodes]!r}\n", encoding="utf-8")
    return path
