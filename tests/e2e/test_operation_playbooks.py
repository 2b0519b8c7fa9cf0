"""provision, disconnect, transfer and remove from a registry: foreseen, done, done once, and noticed by nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.e2e import registry_fleet
from tests.e2e.process_watch import watch_processes
from tests.e2e.registry_fleet import RegistryFleet, connect
from tests.e2e.started_playbook import Run
from tests.e2e.wireguard_keys import preshared_key, private_key, public_key
from tests.lab.device import Device
from tests.lab.ping import PingResult

lab = registry_fleet.lab
fleet = registry_fleet.fleet
sqlite_fleet = registry_fleet.sqlite_fleet

ANNA, BERT, CARL = (f"{name}@example.com" for name in ("anna", "bert", "carl"))


def device_of(name: str, **more: Any) -> dict[str, Any]:
    """A peer whose keys the customer has made."""
    return {
        "name": f"{name}'s phone",
        "public_key": public_key(name),
        "preshared_key": preshared_key(name),
        **more,
    }


@dataclass(frozen=True)
class Asked:
    """A playbook with its extra vars."""

    playbook: str
    variables: dict[str, Any]
    arguments: tuple[str, ...] = ("--diff",)


def foreseen(fleet: RegistryFleet, *asked: Asked) -> list[Run]:
    """Check mode, side by side: it changes nothing, neither on nodes nor in the registry."""
    nodes, tables = fleet.states(), fleet.tables()
    started = [fleet.start(one.playbook, "--check", *one.arguments, **one.variables) for one in asked]
    runs = [run.finish() for run in started]
    assert [run.code for run in runs] == [0] * len(runs), [run.output for run in runs]
    assert fleet.states() == nodes
    assert fleet.tables() == tables
    assert {one["status"] for run in runs for one in run.published["operations"]} == {"planned"}
    return runs


def done(fleet: RegistryFleet, asked: Asked, plan: Run) -> Run:
    """The same in earnest: it changes what check mode has said."""
    run = fleet.done(asked.playbook, *asked.arguments, **asked.variables)
    assert run.changed == plan.changed
    assert {name: one["changed"] for name, one in run.results.items()} == {
        name: one["changed"] for name, one in plan.results.items()
    }
    check_records(fleet, run)
    return run


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


def nothing_to_do(fleet: RegistryFleet, asked: Asked) -> Run:
    """A repeated call finds everything done."""
    nodes = fleet.states()
    run = fleet.done(asked.playbook, **asked.variables)
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
        asked = Asked("provision", {"instances": customers}, ("--diff", "-vvv"))
        made = done(fleet, asked, *foreseen(fleet, asked))
    assert watch.looks > 20
    assert watch.found == ()
    after = fleet.sessions()
    assert [after[node] - before[node] for node in ("node1", "node2", "node3")] == [2, 2, 0]
    told = made.results
    assert [told[name]["code"] for name in (ANNA, BERT, CARL)] == [201, 201, 201]
    assert all(fleet.places(one["interface"]) == {one["node"]: "up"} for one in told.values())
    running = fleet.states()["node1"].interfaces[told[ANNA]["interface"]]
    assert running.peers[public_key("anna")].keepalive == 25
    assert running.peers[public_key("anna")].preshared_key == preshared_key("anna")
    nothing_to_do(fleet, asked)
    addresses = {
        name: connect(device, told[f"{name}@example.com"], private_key(name), preshared_key(name))
        for device, name in ((anna, "anna"), (bert, "bert"), (carl, "carl"))
    }
    others = ((bert, addresses["bert"]), (carl, addresses["carl"]))

    further = Asked("provision", {"instance": ANNA, "peers": [device_of("second"), {"name": "made here"}]})
    down = Asked("disconnect", {"instance": ANNA})
    move = Asked("transfer", {"instance": ANNA, "node": "node2"}, ("--diff", "-vvv"))
    gone = Asked("remove", {"instances": [ANNA]})
    up = Asked("provision", {"instance": ANNA})
    with undisturbed((anna, addresses["anna"]), *others):
        plans = foreseen(fleet, further, down, move, gone)

    # Further peers, one of which gets its keys here.
    with undisturbed((anna, addresses["anna"]), *others):
        more = done(fleet, further, plans[0]).result
    assert more["code"] == 200
    assert [peer["name"] for peer in more["peers"] if peer["added"]] == ["second's phone", "made here"]
    assert len({network for peer in more["peers"] for network in peer["allowed_ips"]}) == 6

    # Down, and kept.
    kept = fleet.instance(ANNA)
    assert kept is not None
    with undisturbed(*others):
        disconnected = done(fleet, down, plans[1]).result
    assert disconnected["instance_id"] == kept.id
    assert fleet.places(f"wg{kept.id}") == {}
    assert anna.ping(addresses["anna"], count=2, timeout=1).received == 0
    nothing_to_do(fleet, down)
    secrets = fleet.secrets()

    # Up again, as it was.
    with undisturbed(*others):
        again = done(fleet, up, *foreseen(fleet, up)).result
    assert {key: again[key] for key in ("public_key", "endpoint", "addresses")} == {
        key: more[key] for key in ("public_key", "endpoint", "addresses")
    }
    assert len(again["peers"]) == 3
    connect(anna, again, private_key("anna"), preshared_key("anna"))
    assert anna.ping(addresses["anna"], count=1, timeout=20).lost == 0

    # To the node where carl is, whose customers notice nothing, nor do those who stay.
    with watch_processes(secrets) as watch, undisturbed(*others):
        moved = done(fleet, move, plans[2]).result
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
    nothing_to_do(fleet, move)

    # Gone, with all there was.
    with undisturbed(*others):
        # It is foreseen for another node than the one where the instance is by now.
        removed = done(fleet, gone, replace(plans[3], changed={"localhost": 1, "node2": 1})).result
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
    once_more = nothing_to_do(fleet, gone).result
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


def test_a_node_that_is_left_out_is_left_alone(sqlite_fleet: RegistryFleet) -> None:
    """By --limit, for two instances on two nodes of which one is not to be touched."""
    fleet = sqlite_fleet
    down, gone = ([f"{what}{number}@example.com" for number in (1, 2)] for what in ("down", "gone"))
    told = fleet.provision({name: f"node{name[4]}" for name in (*down, *gone)})
    interface = {name: one["interface"] for name, one in told.items()}
    untouched = fleet.states()["node2"]

    runs = {
        playbook: fleet.start(playbook, "--limit", "node1", instances=names)
        for playbook, names in (("disconnect", down), ("remove", gone))
    }
    limited = {playbook: run.finish() for playbook, run in runs.items()}

    assert fleet.places(interface[down[0]]) == fleet.places(interface[gone[0]]) == {}
    assert fleet.states()["node2"] == untouched
    for playbook, names, code in (("disconnect", down, 500), ("remove", gone, 207)):
        told_first, told_second = (limited[playbook].results[name] for name in names)
        assert (told_first["code"], told_first["pending"]) == (200, False)
        assert (told_second["code"], told_second["pending"]) == (code, True)
        assert "node node2 was left out of this run" in json.dumps(told_second)
        assert [fleet.operations(name)[-1].state for name in names] == ["succeeded", "pending"]
    assert [limited[playbook].code for playbook in limited] == [2, 0]
    assert fleet.teardowns() == [("node2", interface[gone[1]], "removed")]

    again = [fleet.start("disconnect", instances=down), fleet.start("remove", instances=gone)]

    assert [run.finish().code for run in again] == [0, 0]
    assert fleet.places(interface[down[1]]) == fleet.places(interface[gone[1]]) == {}
    assert [fleet.operations(name)[-1].state for name in (down[1], gone[1])] == ["succeeded", "succeeded"]
    assert fleet.teardowns() == []


def test_a_transfer_that_may_touch_one_of_its_nodes_only_is_refused(sqlite_fleet: RegistryFleet) -> None:
    fleet = sqlite_fleet
    name = "half@example.com"
    fleet.provision({name: "node1"})
    nodes, tables = fleet.states(), fleet.desired()

    runs = {
        missing: fleet.start("transfer", "--limit", limit, instance=name, node="node2")
        for limit, missing in (("node1", "node2"), ("node2", "node1"))
    }

    for missing, started in runs.items():
        run = started.finish()
        assert run.code == 2
        assert run.published["code"] == 409
        assert run.errors == [
            f"a transfer needs both nodes, and {missing} is left out (--limit, or not in the inventory)"
        ]
    assert fleet.states() == nodes
    assert fleet.desired() == tables
