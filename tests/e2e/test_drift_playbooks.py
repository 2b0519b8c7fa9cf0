"""drift.yml and reconcile.yml on real nodes: drift made by hand is found and mended, and nobody else notices."""

from __future__ import annotations

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
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
    no_drift,
    reconcile,
    wg,
)
from tests.e2e.registry_fleet import RegistryFleet
from tests.e2e.wireguard_keys import peer_key, public_key
from tests.lab.node import Node

lab = registry_fleet.lab
fleet = registry_fleet.sqlite_fleet
node = drifting_fleet.node
customers = drifting_fleet.customers
no_secret_is_told = drifting_fleet.no_secret_is_told


def test_no_secret_is_shown_at_any_verbosity(fleet: RegistryFleet) -> None:
    """What a look reads of a node has its keys in it; `no_secret_is_told` goes through the output."""
    run = fleet.done("drift", "-vvvvv")
    assert "SSH: EXEC" in run.output
    assert "stdout and stderr censored due to no log" in run.told


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
