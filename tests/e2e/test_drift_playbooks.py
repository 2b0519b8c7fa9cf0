"""drift.yml and reconcile.yml on real nodes: drift made by hand is found and mended, and nobody else notices."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Operation
from tests.e2e import registry_fleet
from tests.e2e.node_state import read_state
from tests.e2e.registry_fleet import RegistryFleet, Run, connect
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key, public_key
from tests.lab.node import Node

lab = registry_fleet.lab
fleet = registry_fleet.sqlite_fleet

NODE1, NODE2, NODE3 = "node1", "node2", "node3"
EVERYTHING = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": True}
STRANGER = peer_key("stranger")


@pytest.fixture
def node(fleet: RegistryFleet) -> Node:
    return fleet.nodes[NODE1]


@pytest.fixture(scope="module", autouse=True)
def _customers(fleet: RegistryFleet) -> None:
    """Anna, who shares node1 with Bert and is connected all the time, and Carl on node2."""
    fleet.done(
        "provision",
        instances=[
            {"instance": "anna@example.com", "node": NODE1, "peers": [mine("anna")]},
            {
                "instance": "bert@example.com",
                "node": NODE1,
                "peers": [
                    {
                        "name": "phone",
                        "public_key": peer_key("phone"),
                        "preshared_key": preshared_key("phone"),
                    },
                    {"name": "laptop", "public_key": peer_key("laptop"), "persistent_keepalive": 25},
                    {"name": "{{ 7 * 191 }}", "public_key": peer_key("tablet")},
                ],
            },
            {"instance": "carl@example.com", "node": NODE2, "peers": [mine("carl")]},
        ],
    )


@pytest.fixture(scope="module", autouse=True)
def _no_secret_is_told(fleet: RegistryFleet) -> Iterator[None]:
    yield
    secrets = fleet.secrets() | {preshared_key("phone")}
    assert secrets
    assert not [output for output in fleet.outputs for secret in secrets if secret in output]


def test_no_secret_is_shown_at_any_verbosity(fleet: RegistryFleet) -> None:
    """What a look reads of a node has its keys in it; `_no_secret_is_told` goes through the output."""
    run = fleet.done("drift", "-vvvvv")
    assert "SSH: EXEC" in run.output
    assert "stdout and stderr censored due to no log" in run.told


def mine(name: str) -> dict[str, Any]:
    return {"name": f"{name}'s phone", "public_key": public_key(name), "preshared_key": preshared_key(name)}


def provision(fleet: RegistryFleet, node: str, *names: str) -> dict[str, dict[str, Any]]:
    """Customers on a node, each with a peer; what is told of them, by name."""
    return fleet.done(
        "provision",
        instances=[{"instance": name, "node": node, "peers": [{"name": "phone"}]} for name in names],
    ).results


def interface_of(fleet: RegistryFleet, name: str) -> str:
    found = fleet.instance(f"{name}@example.com")
    assert found is not None
    return found.interface


def look(fleet: RegistryFleet, name: str, *arguments: str) -> dict[str, Any]:
    """The report on one node, in the contract's shape."""
    run = fleet.done("drift", *arguments, node=name)
    assert set(run.changed.values()) == {0}
    (only,) = run.published["operations"]
    assert only["node"] == name
    data: dict[str, Any] = only["data"]
    return data


@dataclass(frozen=True)
class Mended:
    """A reconcile: its result, the report in it, and how many modules it called on its node."""

    result: dict[str, Any]
    data: dict[str, Any]
    calls: int


def reconcile(fleet: RegistryFleet, name: str = NODE1, **asked: Any) -> Mended:
    """Foreseen, done, and nothing left to do."""
    nodes, tables = fleet.states(), fleet.tables()
    foreseen = fleet.done("reconcile", "--check", "--diff", node=name, **asked)
    assert fleet.states() == nodes
    assert fleet.tables() == tables
    before = fleet.sessions()
    done = fleet.done("reconcile", "--diff", node=name, **asked)
    after = fleet.sessions()
    assert {node for node in after if after[node] > before[node]} == {name}
    assert done.changed == foreseen.changed
    # What is mended in two steps is shown in two.
    assert set(diff_of(foreseen)) <= set(diff_of(done))
    data: dict[str, Any] = done.result["data"]
    assert foreseen.result["data"] == data
    assert foreseen.result["status"] == "planned"
    again = fleet.done("reconcile", node=name, **asked)
    assert set(again.changed.values()) == {0}, again.output
    assert fleet.sessions()[name] == after[name] + 1
    for kind in ("added", "updated", "removed", "instances"):
        assert again.result["data"][kind] == []
    assert again.result["data"]["errors"] == data["errors"]
    return Mended(done.result, data, after[name] - before[name])


def diff_of(run: Run) -> list[str]:
    return re.findall(r"^[+-](?![+-]).*", run.output, re.MULTILINE)


def no_drift(fleet: RegistryFleet) -> bool:
    summary: dict[str, int] = fleet.done("drift").published["data"]["summary"]
    return summary["total_issues"] == 0


def wg(node: Node, *arguments: str) -> str:
    return node.run(["wg", *arguments]).stdout.strip()


@contextmanager
def anna_keeps_pinging(fleet: RegistryFleet) -> Iterator[None]:
    """Her tunnel is on the same node all the time, and nothing is lost in it."""
    instance = fleet.instance("anna@example.com")
    assert instance is not None
    told = fleet.done("provision", instance="anna@example.com").result
    device = fleet.lab.devices[0]
    address = connect(device, told, private_key("anna"), preshared_key("anna"))
    ping = device.start_ping(address, 0.1)
    assert ping.wait_for_reply()
    before = read_state(fleet.nodes[NODE1]).interfaces[instance.interface]
    yield
    after = read_state(fleet.nodes[NODE1]).interfaces[instance.interface]
    (there,) = before.peers.values()
    (now,) = after.peers.values()
    assert (after, now.handshake, now.endpoint) == (before, there.handshake, there.endpoint)
    assert now.received > there.received
    assert ping.stop().lost == 0
    device.disconnect()


# -- looking


def test_a_fleet_without_drift(fleet: RegistryFleet) -> None:
    before = fleet.states()
    run = fleet.done("drift")
    assert set(run.changed.values()) == {0}
    data = run.published["data"]
    assert data["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 0,
        "total_issues": 0,
        "unreachable_nodes": 0,
    }
    ids = {one["node_id"]: one["node"] for one in run.published["operations"]}
    assert sorted(ids.values()) == [NODE1, NODE2, NODE3]
    for number, report in data["nodes"].items():
        detected_at = report.pop("detected_at")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", detected_at)
        assert report == {
            "has_drift": False,
            "unknown_peers": [],
            "missing_peers": [],
            "mismatched_peers": [],
            "interface_issues": [],
            "summary": {
                "unknown_count": 0,
                "missing_count": 0,
                "mismatched_count": 0,
                "interface_count": 0,
                "total_issues": 0,
            },
            "node_id": number,
            "reachable": True,
        }
    assert fleet.states() == before


def test_a_look_leaves_its_row_and_its_audit(fleet: RegistryFleet) -> None:
    run = fleet.done("drift", node=NODE2)
    with fleet.read() as session:
        row = session.get_one(Operation, run.result["operation_id"])
        assert (row.state, row.result, row.owner) == ("succeeded", run.result, None)
        entry = session.scalars(select(AuditEntry).where(AuditEntry.operation_id == row.id)).one()
        assert (entry.action, entry.subject, entry.result) == ("drift", NODE2, "success")


def test_a_look_in_check_mode_looks_and_records_nothing(fleet: RegistryFleet) -> None:
    tables = fleet.tables()
    run = fleet.done("drift", "--check")
    assert fleet.tables() == tables
    assert run.published["data"]["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 0,
        "total_issues": 0,
        "unreachable_nodes": 0,
    }


def test_limit_looks_at_that_node_alone(fleet: RegistryFleet) -> None:
    before = fleet.sessions()
    run = fleet.done("drift", "--limit", f"localhost,{NODE2}")
    assert [one["node"] for one in run.published["operations"]] == [NODE2]
    assert run.published["data"]["summary"]["total_nodes"] == 1
    after = fleet.sessions()
    assert (after[NODE1], after[NODE3]) == (before[NODE1], before[NODE3])
    refused = fleet.run("reconcile", "--limit", f"localhost,{NODE2}", node=NODE1)
    assert refused.code == 2
    assert "node node1 is left out (--limit" in refused.output


def test_limit_needs_no_localhost(fleet: RegistryFleet) -> None:
    run = fleet.done("drift", "--limit", NODE2)
    assert [one["node"] for one in run.published["operations"]] == [NODE2]
    assert fleet.done("drift", "--check", "--limit", NODE2).published["data"]["summary"]["total_nodes"] == 1


def test_one_look_is_one_session(fleet: RegistryFleet) -> None:
    before = fleet.sessions()
    fleet.done("drift")
    assert fleet.sessions() == {name: number + 1 for name, number in before.items()}


def test_a_look_by_a_user_who_becomes_root(fleet: RegistryFleet, node: Node) -> None:
    """By sudo's own command line; it stands in for what need not be on the machine that runs this."""
    name = drift_by_hand(fleet)
    root = "/usr/local/bin/root"
    sudo = f'shift; while [ "${{1#-}}" != "$1" ]; do [ "$1" != -u ] || shift; shift; done; exec {root} '
    sudo += '--reuid 0 --regid 0 --clear-groups "$@"'
    node.run(["cp", "/usr/bin/setpriv", root])
    node.run(["chmod", "4755", root])
    node.write("/usr/local/bin/sudo", f"#!/bin/sh\n{sudo}\n", 0o755)
    node.run(["useradd", "--create-home", "--password", "*", "ops"])
    node.run(["chmod", "644", "/etc/ssh/authorized_keys"])
    try:
        reached = {"node": NODE1, "ansible_user": "ops"}
        report = fleet.done("drift", **reached, ansible_become=True).result["data"]
        as_nobody = fleet.run("drift", **reached, ansible_become=False)
    finally:
        node.run(["chmod", "600", "/etc/ssh/authorized_keys"])
        node.run(["userdel", "--force", "ops"])  # her connection is kept open
        node.run(["rm", root, "/usr/local/bin/sudo"])
    assert {one["interface"] for one in report["missing_peers"]} == {name}
    assert report["summary"]["total_issues"] == 4
    # Who may not look has not seen that there is nothing.
    assert as_nobody.code == 2
    assert "user id" in as_nobody.result["message"]
    fleet.done("reconcile", node=NODE1, **EVERYTHING)
    assert no_drift(fleet)


@pytest.mark.parametrize("seconds", [0, "{{ 5 }}"])
def test_a_time_limit_that_is_none_is_refused(fleet: RegistryFleet, seconds: Any) -> None:
    run = fleet.run("drift", timeout=seconds)
    assert (run.code, run.published["code"]) == (2, 400), run.output
    assert "timeout" in run.published["message"]


def test_what_is_no_node_is_refused(fleet: RegistryFleet) -> None:
    tables = fleet.desired()
    mark = fleet.folder / "executed"
    template = "{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("drift", {"node": "nowhere.example.com"}),
        ("drift", {"node": template}),
        ("drift", {"node": ["node1"]}),
        ("reconcile", {"node": "nowhere.example.com"}),
        ("reconcile", {"node": template}),
        ("reconcile", {}),
        ("reconcile", {"node": NODE1, "remove_unknown": "maybe"}),
        ("reconcile", {"node": NODE1, "max_removals": template}),
    ]
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda one: fleet.run(one[0], **one[1]), asked))
    for run in runs:
        assert run.code == 2, run.output
        assert re.search(r"\b(node|remove_unknown|max_removals)\b", run.errors[0])
        assert run.published["code"] in (400, 404)
    assert not mark.exists()
    assert fleet.desired() == tables


# -- peers


def drift_by_hand(fleet: RegistryFleet) -> str:
    """Bert's phone gone, his laptop changed, and a stranger in; returns his interface."""
    name = interface_of(fleet, "bert")
    wg(
        fleet.nodes[NODE1], "set", name,
        "peer", peer_key("phone"), "remove",
        "peer", peer_key("laptop"), "persistent-keepalive", "30",
        "peer", STRANGER, "allowed-ips", "10.99.0.7/32", "endpoint", "192.0.2.4:51820",
    )  # fmt: skip
    return name


def test_drift_made_by_hand_is_found_and_mended(fleet: RegistryFleet, node: Node) -> None:
    name = drift_by_hand(fleet)
    with anna_keeps_pinging(fleet):
        report = look(fleet, NODE1)
        assert report["has_drift"] is True
        assert report["unknown_peers"] == [
            {
                "interface": name,
                "public_key": STRANGER,
                "allowed_ips": ["10.99.0.7/32"],
                "endpoint": "192.0.2.4:51820",
                "persistent_keepalive": 0,
            }
        ]
        (missing,) = report["missing_peers"]
        assert (missing["public_key"], missing["name"]) == (peer_key("phone"), "phone")
        (mismatched,) = report["mismatched_peers"]
        assert (mismatched["public_key"], mismatched["name"]) == (peer_key("laptop"), "laptop")
        assert mismatched["mismatches"] == [{"field": "persistent_keepalive", "expected": 25, "actual": 30}]
        assert len(missing["peer_id"]) == len(mismatched["peer_id"]) == 36
        assert [one["field"] for one in report["interface_issues"]] == ["file"]
        assert report["summary"]["total_issues"] == 4

        mended = reconcile(fleet)

    assert mended.result["message"] == "Added 1 peers, Updated 1 peers, 0 errors"
    data = mended.data
    assert (data["added"], data["updated"]) == ([peer_key("phone")], [peer_key("laptop")])
    assert (data["removed"], data["errors"], data["instances"]) == ([], [], [])
    assert mended.calls == 1
    assert STRANGER in wg(node, "show", name, "peers").split()

    refused = fleet.done("reconcile", node=NODE1, remove_unknown=True, max_removals=0).result
    assert (refused["status"], refused["code"]) == ("partial_success", 200)
    assert "1 unknown peers would be removed, 0 are allowed" in refused["data"]["errors"][0]["error"]
    assert STRANGER in wg(node, "show", name, "peers").split()

    mended = reconcile(fleet, remove_unknown=True)
    assert mended.result["message"] == "Removed 1 peers, 0 errors"
    assert mended.data["removed"] == [STRANGER]
    assert STRANGER not in wg(node, "show", name, "peers").split()
    assert no_drift(fleet)


def test_switches_allow_one_kind_at_a_time(fleet: RegistryFleet, node: Node) -> None:
    name = drift_by_hand(fleet)
    data = fleet.done("reconcile", node=NODE1, reconcile_mismatched=False).result["data"]
    assert (data["added"], data["updated"]) == ([peer_key("phone")], [])
    wg(node, "set", name, "peer", peer_key("phone"), "remove")
    node.run(["ip", "link", "delete", interface_of(fleet, "anna")])
    asked = {"reconcile_missing": "no", "remove_unknown": "yes"}
    data = fleet.done("reconcile", node=NODE1, **asked).result["data"]
    assert (data["added"], data["updated"], data["removed"]) == ([], [peer_key("laptop")], [STRANGER])
    assert (data["instances"], data["errors"]) == ([], [])
    data = fleet.done("reconcile", node=NODE1).result["data"]
    assert sorted(data["added"]) == sorted([peer_key("phone"), public_key("anna")])
    assert no_drift(fleet)


def test_a_peer_that_cannot_be_put_in_place_is_an_error_of_its_own(fleet: RegistryFleet, node: Node) -> None:
    name = interface_of(fleet, "bert")
    networks = wg(node, "show", name, "allowed-ips").splitlines()
    (address,) = [line.split()[1] for line in networks if line.startswith(peer_key("phone"))]
    wg(node, "set", name, "peer", peer_key("laptop"), "remove", "peer", STRANGER, "allowed-ips", address)
    mended = reconcile(fleet)
    assert mended.result["message"] == "Added 1 peers, 1 errors"
    assert (mended.result["status"], mended.result["code"]) == ("partial_success", 200)
    assert mended.data["added"] == [peer_key("laptop")]
    (error,) = mended.data["errors"]
    assert (error["peer"], error["interface"], error["action"]) == (peer_key("phone"), name, "update")
    fleet.done("reconcile", node=NODE1, **EVERYTHING)
    assert no_drift(fleet)


# -- reports


def test_ci_looks_at_the_exit_code_the_diff_and_the_report(fleet: RegistryFleet, tmp_path: Path) -> None:
    asked = {"fail_on_drift": True, "report_dir": str(tmp_path / "out")}
    arguments = ("--check", "--diff")
    calm = fleet.done("drift", *arguments, **asked)
    assert "---" not in calm.output
    data = json.loads((tmp_path / "out" / "drift.json").read_text(encoding="utf-8"))["data"]
    assert data["summary"] == calm.published["data"]["summary"]
    assert data["summary"]["total_issues"] == 0

    name = drift_by_hand(fleet)
    tables = fleet.tables()
    run = fleet.run("drift", *arguments, **asked)
    assert run.code == 2
    assert fleet.tables() == tables
    assert "drift on 1 of 3 nodes: node1 (4 issues)" in run.errors[-1]
    assert "would be" not in run.output
    shown = run.output[run.output.index(f"--- before: {NODE1} {name}") :].splitlines()
    assert shown[1] == f"+++ after: {NODE1} {name}"
    diff = [line for line in shown[3:8] if line[0] in "+-"]
    assert f"-peer: {peer_key('laptop')} persistent_keepalive 30 (laptop)" in diff
    assert f"+peer: {peer_key('laptop')} persistent_keepalive 25 (laptop)" in shown
    assert any(line.startswith(f"+peer: {peer_key('phone')} allowed_ips ") for line in shown)
    assert any(line.startswith(f"-peer: {STRANGER} allowed_ips 10.99.0.7/32") for line in shown)

    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert files == {"drift.html": 0o600, "drift.json": 0o600}
    told = json.loads((tmp_path / "out" / "drift.json").read_text(encoding="utf-8"))
    nodes = {one.pop("node"): one for one in told["data"]["nodes"].values()}
    assert sorted(nodes) == [NODE1, NODE2, NODE3]
    assert nodes[NODE1] == run.published["data"]["nodes"][nodes[NODE1]["node_id"]]
    assert told["instances"] == {name: "bert@example.com"}
    page = (tmp_path / "out" / "drift.html").read_text(encoding="utf-8")
    for text in ("Drift on 1 of 3 nodes", "bert@example.com", STRANGER, f"reconcile.yml -e node={NODE1}"):
        assert text in page
    assert not [secret for secret in fleet.secrets() if secret in page or secret in str(told)]

    # Without being asked to, drift is no failure, and nothing is left behind.
    (tmp_path / "out" / "drift.html").unlink()
    assert fleet.done("drift").published["data"]["summary"]["total_issues"] == 4
    assert not (tmp_path / "out" / "drift.html").exists()
    blocked = tmp_path / "a file"
    blocked.touch()
    refused = fleet.run("drift", report_dir=str(blocked))
    assert (refused.code, refused.published["code"]) == (2, 400)
    fleet.done("reconcile", node=NODE1, **EVERYTHING)
    assert no_drift(fleet)


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
    while broken.run(["pgrep", "-f", "^sleep 1000"], check=False).returncode == 0:
        time.sleep(0.1)  # the node ends it by itself
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
