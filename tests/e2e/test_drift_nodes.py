"""drift.yml and reconcile.yml for interfaces set up otherwise, and with nodes that are not there, or half."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Operation
from tests.e2e import drifting_fleet, registry_fleet
from tests.e2e.drifting_fleet import (
    EVERYTHING,
    NODE1,
    NODE2,
    NODE3,
    STRANGER,
    anna_keeps_pinging,
    drift_by_hand,
    interface_of,
    look,
    mine,
    no_drift,
    provision,
    reconcile,
    wg,
)
from tests.e2e.node_state import read_state
from tests.e2e.registry_fleet import RegistryFleet, connect
from tests.e2e.waiting import wait_for
from tests.e2e.wireguard_keys import preshared_key, private_key, public_key
from tests.lab.node import Node

lab = registry_fleet.lab
fleet = registry_fleet.sqlite_fleet
node = drifting_fleet.node
customers = drifting_fleet.customers
no_secret_is_told = drifting_fleet.no_secret_is_told


# -- interfaces

# What is done to an interface by hand, and of what it is an issue.
BY_HAND = {
    'ip link delete "$1"; rm "/etc/wireguard/$1.conf"': {"interface", "file"},
    'wg genkey >/run/key; wg set "$1" private-key /run/key; rm /run/key': {"public_key", "file"},
    'wg set "$1" listen-port 9': {"listen_port", "file"},
    'ip address add 10.99.9.9/32 dev "$1"': {"addresses", "file"},
    'ip -6 address flush dev "$1" scope global': {"addresses", "file"},
    'ip link set "$1" down': {"interface", "addresses", "file"},
    'echo nonsense >"/etc/wireguard/$1.conf"': {"file"},
    'rm "/etc/wireguard/$1.conf"': {"file"},
    # The file and what runs agree, and are both wrong.
    'sed -i "s/^ListenPort.*/ListenPort = 99/" "/etc/wireguard/$1.conf"; ip link delete "$1"; '
    'while [ -e "/run/wireguard/$1.sock" ]; do sleep 0.05; done; wg-quick up "$1" 2>/dev/null': {
        "listen_port"
    },
}


def test_interfaces_set_up_otherwise_are_put_right(fleet: RegistryFleet, node: Node) -> None:
    customers = [f"hans{number}@example.com" for number in range(len(BY_HAND))]
    told = provision(fleet, NODE1, *customers)
    names = [told[customer]["interface"] for customer in customers]
    before = read_state(node)
    with anna_keeps_pinging(fleet):
        for name, change in zip(names, BY_HAND, strict=True):
            node.run(["sh", "-euc", change, "sh", name])

        report = look(fleet, NODE1)
        found: dict[str, set[str]] = {}
        for issue in report["interface_issues"]:
            found.setdefault(issue["interface"], set()).add(issue["field"])
        assert found == dict(zip(names, BY_HAND.values(), strict=True))
        (missing,) = report["missing_peers"]
        assert missing["interface"] == names[0]
        mended = reconcile(fleet)

    assert mended.calls == 2
    assert mended.data["added"] == [missing["public_key"]]
    assert (mended.data["errors"], mended.data["removed"]) == ([], [])
    assert mended.result["message"].startswith("Added 1 peers, Put right ")
    instances = {one["interface"]: one for one in mended.data["instances"]}
    assert instances == {
        name: {"interface": name, "instance": customer, "state": "present", "changed": True}
        for name, customer in zip(names, customers, strict=True)
    }
    after = read_state(node)
    assert after.interfaces == before.interfaces
    # Whose file was gone has it again, with the MTU that was found.
    assert after.files.keys() == before.files.keys()
    assert {file.mode for file in after.files.values()} == {file.mode for file in before.files.values()}
    assert no_drift(fleet)
    fleet.done("remove", instances=customers)


def nodes_file(fleet: RegistryFleet, **fields: Any) -> str:
    path = fleet.folder / "nodes.json"
    path.write_text(json.dumps([{"name": NODE1, **fields}]), encoding="utf-8")
    return str(path)


def test_overrides_are_in_effect_after_a_reconcile_and_nobody_notices(
    fleet: RegistryFleet, node: Node
) -> None:
    anna, bert = interface_of(fleet, "anna"), interface_of(fleet, "bert")
    told = fleet.done("provision", instance="anna@example.com").result
    device = fleet.lab.devices[0]
    ping = device.start_ping(connect(device, told, private_key("anna"), preshared_key("anna")), 0.1)
    assert ping.wait_for_reply()
    before = read_state(node)
    (session,) = before.interfaces[anna].peers.values()

    overrides = {"override_mtu": 1380, "override_keepalive": 20, "override_listen_port": 52000}
    fleet.done("nodes", nodes_file=nodes_file(fleet, **overrides, override_dns="192.0.2.53"))
    assert read_state(node) == before, "storing it changes nothing on the node"
    with fleet.read() as session_of_registry:
        query = select(AuditEntry).where(AuditEntry.action == "node updated").order_by(AuditEntry.id.desc())
        entry = session_of_registry.scalars(query).first()
        assert entry is not None
        assert entry.details["fields"]["override_keepalive"] == {"before": None, "after": 20}

    report = look(fleet, NODE1)
    assert sorted(
        (one["interface"], one["field"], one["expected"]) for one in report["interface_issues"]
    ) == sorted((name, "mtu", 1380) for name in (anna, bert))
    keepalive = [{"field": "persistent_keepalive", "expected": 20, "actual": 0}]
    assert {one["name"]: one["mismatches"] for one in report["mismatched_peers"]} == {
        "anna's phone": keepalive,
        "phone": keepalive,
        "{{ 7 * 191 }}": keepalive,
    }
    mended = reconcile(fleet)
    assert (len(mended.data["updated"]), mended.data["added"], mended.data["errors"]) == (3, [], [])
    after = read_state(node)
    for name in (anna, bert):
        assert after.interfaces[name].listen_port == before.interfaces[name].listen_port
        assert after.interfaces[name].mtu == 1380
        assert "MTU = 1380" in node.read(f"/etc/wireguard/{name}.conf")
    assert sorted(peer.keepalive for peer in after.interfaces[bert].peers.values()) == [20, 20, 25]
    assert no_drift(fleet)

    # New customers get what the node says from the beginning, the old ones keep their ports.
    new = provision(fleet, NODE1, "nina@example.com")["nina@example.com"]
    assert (new["listen_port"], new["mtu"], new["keepalive"], new["dns"]) == (52000, 1380, 20, "192.0.2.53")
    assert no_drift(fleet)
    fleet.done("remove", instance="nina@example.com")

    # Back again: the keepalive goes, too.
    back = {**dict.fromkeys(overrides), "override_mtu": 1420, "override_dns": None}
    fleet.done("nodes", nodes_file=nodes_file(fleet, **back))
    assert look(fleet, NODE1)["summary"]["mismatched_count"] == 3
    fleet.done("reconcile", node=NODE1)
    assert no_drift(fleet)
    assert read_state(node).interfaces[bert] == before.interfaces[bert]
    (now,) = read_state(node).interfaces[anna].peers.values()
    assert now.endpoint == session.endpoint
    assert now.received > session.received
    assert ping.stop().lost == 0
    device.disconnect()
    fleet.done("nodes", nodes_file=nodes_file(fleet, override_mtu=None))
    fleet.done("reconcile", node=NODE1)
    assert no_drift(fleet)


def should_be_gone(interface: str, actual: str) -> dict[str, str]:
    return {"interface": interface, "field": "interface", "expected": "absent", "actual": actual}


def test_what_is_disconnected_and_what_nobody_knows(fleet: RegistryFleet, node: Node) -> None:
    provision(fleet, NODE1, "dora@example.com")
    name = interface_of(fleet, "dora")
    kept = node.read(f"/etc/wireguard/{name}.conf")
    fleet.done("disconnect", instance="dora@example.com")
    node.write(f"/etc/wireguard/{name}.conf", kept, 0o600)
    node.run(["wg-quick", "up", name])
    other = "wg987"
    node.run(["sh", "-c", f"wireguard-go {other} >/dev/null 2>&1 </dev/null"])
    wg(node, "set", other, "listen-port", "9871", "peer", STRANGER, "allowed-ips", "10.98.0.1/32")
    known = node.run(["wg", "showconf", other]).stdout
    try:
        report = look(fleet, NODE1)
        assert report["interface_issues"] == [should_be_gone(name, "up"), should_be_gone(other, "down")]
        assert report["unknown_peers"] == []
        mended = reconcile(fleet, **EVERYTHING)
        assert mended.result["message"] == "Took down 1 instances, 0 errors"
        assert [(one["interface"], one["state"]) for one in mended.data["instances"]] == [
            (name, "disconnected")
        ]
        assert fleet.places(name) == {}
        assert node.run(["wg", "showconf", other]).stdout == known
        assert look(fleet, NODE1)["interface_issues"] == [should_be_gone(other, "down")]
    finally:
        node.run(["ip", "link", "delete", other])


# -- nodes that are not there, or half


def connections(fleet: RegistryFleet, name: str) -> list[str]:
    """The controller's processes that are still talking to a node, but for a shared connection, which may stay."""
    address = fleet.nodes[name].address
    found = subprocess.run(["ss", "-Htnp", "dst", address], capture_output=True, text=True, check=True).stdout
    pids = sorted(set(re.findall(r"pid=(\d+)", found)))
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids]
    return [line for line in lines if "[mux]" not in line]


def test_a_node_that_hangs_is_an_error_after_its_time(fleet: RegistryFleet) -> None:
    """Two of them, and one place: the third has its turn, and nothing of the two is left."""
    fleet.nodes[NODE1].freeze()
    broken = fleet.nodes[NODE2]
    broken.write("/usr/local/sbin/wg", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    try:
        run = fleet.run("drift", "--forks", "1", timeout=3)
        foreseen = fleet.run("drift", "--check", "--forks", "1", timeout=3)
        left = connections(fleet, NODE1) + connections(fleet, NODE2)
    finally:
        fleet.nodes[NODE1].thaw()
        broken.run(["rm", "/usr/local/sbin/wg"])
    assert left == []
    for one in (run, foreseen):
        assert one.code == 2
        nodes = {
            row["node"]: one.published["data"]["nodes"][row["node_id"]] for row in one.published["operations"]
        }
        for name in (NODE1, NODE2):
            assert f"node {name} cannot be reached: " in nodes[name]["error"]
        assert "there is no answer within 3 s" in nodes[NODE2]["error"]
        assert nodes[NODE3]["has_drift"] is False
    wait_for(broken, "! pgrep -f '^sleep 1000'")  # the node ends it by itself
    assert no_drift(fleet)


HALF = {
    "half a dump": '/usr/bin/wg "$@" | head -c 150',
    "no dump": "exit 1",
    "an interface that cannot be read": '/usr/bin/wg "$@" | grep -v "^$(ls /run/wireguard | head -1 | cut -d. -f1)\t"'
    '; echo "Unable to access interface $(ls /run/wireguard | head -1 | cut -d. -f1): Broken" >&2; exit 1',
    "killed": "kill -KILL $PPID",
}


def test_nothing_is_concluded_from_half_an_answer(fleet: RegistryFleet, node: Node) -> None:
    for name, script in HALF.items():
        node.write("/usr/local/sbin/wg", f"#!/bin/sh\n{script}\n", 0o755)
        try:
            run = fleet.run("drift", node=NODE1)
        finally:
            node.run(["rm", "/usr/local/sbin/wg"])
        assert run.code == 2, name
        assert (run.result["status"], run.result["code"]) == ("error", 500), name
        assert "data" not in run.result, name
    assert no_drift(fleet)


def test_a_dead_node_is_an_error_in_the_report_of_the_fleet(fleet: RegistryFleet) -> None:
    name = drift_by_hand(fleet)
    fleet.nodes[NODE2].kill()
    try:
        run = fleet.run("drift")
        alone = fleet.run("drift", node=NODE2)
        mended = fleet.run("reconcile", node=NODE2)
        foreseen = fleet.run("reconcile", "--check", node=NODE2)
    finally:
        fleet.nodes[NODE2].boot()
    assert [run.code, alone.code, mended.code, foreseen.code] == [2, 2, 2, 2]
    data = {
        one["node"]: run.published["data"]["nodes"][one["node_id"]] for one in run.published["operations"]
    }
    assert "node node2 cannot be reached" in data[NODE2]["error"]
    assert data[NODE2]["has_drift"] is None
    assert "error" not in data[NODE1]
    assert data[NODE1]["missing_peers"][0]["interface"] == name
    assert data[NODE3]["has_drift"] is False
    assert run.published["data"]["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 1,
        "total_issues": 4,
        "unreachable_nodes": 1,
    }
    assert run.published["status"] == "partial_success"
    for one in (alone, mended):
        assert (one.result["status"], one.result["code"], one.result["pending"]) == ("error", 500, False)
        assert "node node2 cannot be reached" in one.result["message"]
    with fleet.read() as session:
        row = session.get_one(Operation, mended.result["operation_id"])
        assert (row.state, row.owner) == ("failed", None)

    # Of Carl's, the power cut has left the file, and the lab has no units.
    data = fleet.done("reconcile", node=NODE2).result["data"]
    assert [one["instance"] for one in data["instances"]] == ["carl@example.com"]
    fleet.done("reconcile", node=NODE1, **EVERYTHING)
    assert no_drift(fleet)


def test_a_removal_that_a_dead_node_missed_is_drift_until_a_reconcile(fleet: RegistryFleet) -> None:
    provision(fleet, NODE3, "emil@example.com")
    name = interface_of(fleet, "emil")
    fleet.nodes[NODE3].freeze()
    try:
        removed = fleet.run("remove", instance="emil@example.com")
    finally:
        fleet.nodes[NODE3].thaw()
    assert removed.result["pending"] is True
    assert fleet.teardowns() == [(NODE3, name, "removed")]
    assert fleet.places(name) == {NODE3: "up"}

    assert look(fleet, NODE3)["interface_issues"] == [should_be_gone(name, "up")]
    mended = reconcile(fleet, NODE3)

    assert mended.result["message"] == "Took down 1 instances, 0 errors"
    assert mended.data["instances"] == [
        {"interface": name, "instance": "emil@example.com", "state": "absent", "changed": True}
    ]
    assert fleet.places(name) == {}
    assert fleet.teardowns() == []
    kept = fleet.operations("emil@example.com")[-1]
    assert (kept.kind, kept.state) == ("remove", "succeeded")
    assert kept.result is not None
    assert kept.result["pending"] is False
    assert {"type": "wireguard_configs", "identifier": "regenerated"} in kept.result["results"][
        "removed_items"
    ]
    assert no_drift(fleet)


def test_what_a_dead_node_was_to_bring_up_comes_up_by_a_reconcile(fleet: RegistryFleet) -> None:
    fleet.nodes[NODE3].freeze()
    try:
        missed = fleet.run("provision", instance="finn@example.com", node=NODE3, peers=[mine("finn")])
    finally:
        fleet.nodes[NODE3].thaw()
    assert (missed.code, missed.result["pending"]) == (2, True)
    name = interface_of(fleet, "finn")

    mended = reconcile(fleet, NODE3)

    assert mended.data["added"] == [public_key("finn")]
    assert fleet.places(name) == {NODE3: "up"}
    kept = fleet.operations("finn@example.com")[-1]
    assert (kept.kind, kept.state) == ("provision", "succeeded")
    told = kept.result
    assert told is not None
    device = fleet.lab.devices[1]
    address = connect(device, told, private_key("finn"), preshared_key("finn"))
    assert device.ping(address, timeout=10).lost == 0
    device.disconnect()


def test_a_transfer_away_from_a_dead_node_is_finished_by_its_reconcile(fleet: RegistryFleet) -> None:
    provision(fleet, NODE3, "gina@example.com")
    name = interface_of(fleet, "gina")
    fleet.nodes[NODE3].freeze()
    try:
        moved = fleet.done("transfer", instance="gina@example.com", node=NODE2)
    finally:
        fleet.nodes[NODE3].thaw()
    assert moved.result["pending"] is True
    assert fleet.places(name) == {NODE2: "up", NODE3: "up"}

    fleet.done("reconcile", node=NODE2)
    assert fleet.places(name) == {NODE2: "up", NODE3: "up"}
    fleet.done("reconcile", node=NODE3)

    assert fleet.places(name) == {NODE2: "up"}
    kept = fleet.operations("gina@example.com")[-1]
    assert (kept.kind, kept.state) == ("transfer", "succeeded")
    assert kept.result is not None
    assert "warnings" not in kept.result
