"""provision, disconnect, transfer and remove from a registry: foreseen, done, done once, and noticed by nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e import registry_fleet
from tests.e2e.process_watch import watch_processes
from tests.e2e.registry_fleet import RegistryFleet, Run, connect
from tests.e2e.wireguard_keys import preshared_key, private_key, public_key
from tests.lab.device import Device
from tests.lab.ping import PingResult

lab = registry_fleet.lab
fleet = registry_fleet.fleet

ANNA, BERT, CARL, DORA = (f"{name}@example.com" for name in ("anna", "bert", "carl", "dora"))


def device_of(name: str, **more: Any) -> dict[str, Any]:
    """A peer whose keys the customer has made."""
    return {
        "name": f"{name}'s phone",
        "public_key": public_key(name),
        "preshared_key": preshared_key(name),
        **more,
    }


def foreseen_and_done(fleet: RegistryFleet, playbook: str, *arguments: str, **asked: Any) -> Run:
    """Check mode, which must change nothing and foresee what the run then does."""
    nodes, tables = fleet.states(), fleet.tables()
    foreseen = fleet.done(playbook, "--check", "--diff", *arguments, **asked)
    assert fleet.states() == nodes
    assert fleet.tables() == tables
    done = fleet.done(playbook, "--diff", *arguments, **asked)
    assert done.changed == foreseen.changed
    assert {one["status"] for one in foreseen.published["operations"]} == {"planned"}
    assert {name: one["changed"] for name, one in foreseen.results.items()} == {
        name: one["changed"] for name, one in done.results.items()
    }
    check_records(fleet, done)
    return done


def check_records(fleet: RegistryFleet, run: Run) -> None:
    """The rows of the operations hold what was published, and each has its audit row."""
    tables = fleet.tables()
    for name, told in run.results.items():
        kept = fleet.operations(name)[-1]
        assert kept.id == told["operation_id"]
        assert kept.result == told
        assert kept.state == ("pending" if told["pending"] else "succeeded")
        assert kept.owner is None
        assert any(told["operation_id"] in row and name in row for row in tables["audit_entry"])


def nothing_to_do(fleet: RegistryFleet, playbook: str, **asked: Any) -> Run:
    """A repeated call finds everything done."""
    nodes = fleet.states()
    run = fleet.done(playbook, **asked)
    assert set(run.changed.values()) == {0}, run.output
    assert not run.published["changed"]
    assert fleet.states() == nodes
    return run


@contextmanager
def undisturbed(*pinging: tuple[Device, str]) -> Iterator[None]:
    """Devices ping their nodes meanwhile, and lose nothing."""
    running = [device.start_ping(address, 0.1) for device, address in pinging]
    results: list[PingResult] = []
    try:
        for ping in running:
            assert ping.wait_for_reply()
        yield
    finally:
        results = [ping.stop() for ping in running]
    assert [result.lost for result in results] == [0] * len(results)


def test_from_provision_to_remove(fleet: RegistryFleet) -> None:
    anna, bert, carl = fleet.lab.devices[:3]
    customers = [
        {"instance": ANNA, "node": "node1", "peers": [device_of("anna", persistent_keepalive=25)]},
        {"instance": BERT, "node": "node1", "peers": [device_of("bert")]},
        {"instance": CARL, "node": "node2", "peers": [device_of("carl")]},
    ]

    # A list: one call for each node.
    before = fleet.sessions()
    with watch_processes(preshared_key(name) for name in ("anna", "bert", "carl")) as watch:
        done = foreseen_and_done(fleet, "provision", "-vvv", instances=customers)
    assert watch.looks > 20
    assert watch.found == ()
    after = fleet.sessions()
    assert [after[node] - before[node] for node in ("node1", "node2", "node3")] == [2, 2, 0]
    told = done.results
    assert [told[name]["code"] for name in (ANNA, BERT, CARL)] == [201, 201, 201]
    assert all(fleet.places(one["interface"]) == {one["node"]: "up"} for one in told.values())
    running = fleet.states()["node1"].interfaces[told[ANNA]["interface"]]
    assert running.peers[public_key("anna")].keepalive == 25
    assert running.peers[public_key("anna")].preshared_key == preshared_key("anna")
    nothing_to_do(fleet, "provision", instances=customers)
    addresses = {
        name: connect(device, told[f"{name}@example.com"], private_key(name), preshared_key(name))
        for device, name in ((anna, "anna"), (bert, "bert"), (carl, "carl"))
    }
    others = ((bert, addresses["bert"]), (carl, addresses["carl"]))

    # Further peers, one of which gets its keys here.
    with undisturbed((anna, addresses["anna"]), *others):
        more = foreseen_and_done(
            fleet, "provision", instance=ANNA, peers=[device_of("anna's second"), {"name": "made here"}]
        ).result
    assert more["code"] == 200
    assert [peer["name"] for peer in more["peers"] if peer["added"]] == ["anna's second's phone", "made here"]
    assert len({network for peer in more["peers"] for network in peer["allowed_ips"]}) == 6

    # Down, and kept.
    kept = fleet.instance(ANNA)
    assert kept is not None
    with undisturbed(*others):
        down = foreseen_and_done(fleet, "disconnect", instance=ANNA)
    assert down.result["instance_id"] == kept.id
    assert fleet.places(f"wg{kept.id}") == {}
    assert anna.ping(addresses["anna"], count=2, timeout=1).received == 0
    nothing_to_do(fleet, "disconnect", instances=[ANNA])
    secrets = fleet.secrets()

    # Up again, as it was.
    with undisturbed(*others):
        again = foreseen_and_done(fleet, "provision", instance=ANNA).result
    assert {key: again[key] for key in ("public_key", "endpoint", "addresses")} == {
        key: more[key] for key in ("public_key", "endpoint", "addresses")
    }
    assert len(again["peers"]) == 3
    connect(anna, again, private_key("anna"), preshared_key("anna"))
    assert anna.ping(addresses["anna"], count=1, timeout=20).lost == 0

    # To the node where carl is, whose customers notice nothing, nor do those who stay.
    with watch_processes(secrets) as watch, undisturbed(*others):
        moved = foreseen_and_done(fleet, "transfer", "-vvv", instance=ANNA, node="node2").result
    assert watch.looks > 20
    assert watch.found == ()
    assert fleet.places(f"wg{kept.id}") == {"node2": "up"}
    assert moved["updated_licenses"] == 1
    assert moved["new_server"] == {"country": "Netherlands", "dns_name": "node2.example.com"}
    assert moved["endpoint"].startswith(fleet.nodes["node2"].address)
    there = fleet.instance(ANNA)
    assert there is not None
    assert (there.private_key, there.subnet, there.subnet6) == (kept.private_key, kept.subnet, kept.subnet6)
    assert fleet.states()["node2"].interfaces[f"wg{kept.id}"].private_key == kept.private_key
    assert anna.ping(addresses["anna"], count=1, timeout=1).lost == 1
    connect(anna, {**again, "endpoint": moved["endpoint"]}, private_key("anna"), preshared_key("anna"))
    assert anna.ping(addresses["anna"], count=1, timeout=20).lost == 0
    nothing_to_do(fleet, "transfer", instance=ANNA, node="node2")

    # Gone, with all there was.
    with undisturbed(*others):
        removed = foreseen_and_done(fleet, "remove", instances=[ANNA]).result
    assert removed["code"] == 200
    assert removed["status"] == "success"
    assert removed["results"]["errors"] == []
    assert removed["results"]["instance_identifier"] == ANNA
    assert [item["type"] for item in removed["results"]["removed_items"]] == [
        "wireguard_instance",
        "peer_group",
        "user_acl",
        "user",
        "wireguard_configs",
    ]
    assert removed["results"]["removed_items"][0] == {
        "type": "wireguard_instance",
        "identifier": kept.uuid,
        "peers_removed": 3,
    }
    assert fleet.places(f"wg{kept.id}") == {}
    assert fleet.teardowns() == []
    left = fleet.tables()
    for table in ("operation", "audit_entry"):
        del left[table]
    assert ANNA not in repr(left)
    assert kept.uuid not in repr(left)
    once_more = nothing_to_do(fleet, "remove", instance=ANNA).result
    assert (once_more["code"], once_more["status"]) == (207, "partial_success")
    assert once_more["results"] == {
        "instance_identifier": ANNA,
        "removed_items": [],
        "errors": [
            f"WireGuard instance not found: {ANNA}",
            f"Peer group not found: {ANNA}_group",
            f"User not found: {ANNA}",
        ],
    }

    # What nobody may see was nowhere.
    secrets |= fleet.secrets() | fleet.keys()
    assert len(secrets) > 8
    logs = [
        node.run(["sh", "-c", "cat /var/log/* /tmp/* 2>/dev/null; true"]).stdout for node in fleet.lab.nodes
    ]
    assert all("Starting session" in log for log in logs[:2])
    assert not [secret for secret in secrets for text in (*fleet.outputs, *logs) if secret in text]


@pytest.mark.parametrize("limited", ["disconnect", "remove"])
def test_a_node_that_is_left_out_is_left_alone(fleet: RegistryFleet, limited: str) -> None:
    names = [f"limit-{limited}-{number}@example.com" for number in (1, 2)]
    told = fleet.provision(dict(zip(names, ("node1", "node2"), strict=True)))
    first, second = (told[name]["interface"] for name in names)
    untouched = fleet.states()["node2"]

    run = fleet.run(limited, "--limit", "node1", instances=names)

    assert fleet.places(first) == {}
    assert fleet.states()["node2"] == untouched
    left = run.results[names[1]]
    assert "node node2 was left out of this run" in json.dumps(left)
    assert left["pending"]
    assert not run.results[names[0]]["pending"]
    if limited == "disconnect":
        assert run.code == 2
        assert (left["status"], left["code"]) == ("error", 500)
    else:
        assert run.code == 0
        assert (left["status"], left["code"]) == ("partial_success", 207)
        assert fleet.teardowns() == [("node2", second, "removed")]
    check_states(fleet, names, ["succeeded", "pending"])

    again = fleet.done(limited, instances=names)

    assert fleet.places(second) == {}
    assert not again.results[names[1]]["pending"]
    assert fleet.teardowns() == []
    check_states(fleet, names, ["succeeded", "succeeded"])


def check_states(fleet: RegistryFleet, names: list[str], states: list[str]) -> None:
    """How the latest operations on these instances ended."""
    assert [fleet.operations(name)[-1].state for name in names] == states


def test_a_transfer_that_may_touch_one_of_its_nodes_only_is_refused(fleet: RegistryFleet) -> None:
    name = "limit-transfer@example.com"
    fleet.provision({name: "node1"})
    nodes, tables = fleet.states(), fleet.tables()
    for limit, missing in (("node1", "node2"), ("node2", "node1")):
        run = fleet.run("transfer", "--limit", limit, instance=name, node="node2")
        assert run.code == 2
        (message,) = run.errors
        assert message.endswith(
            f"a transfer needs both nodes, and {missing} is left out (--limit, or not in the inventory)"
        )
    assert fleet.states() == nodes
    assert fleet.tables() == tables
