"""Nodes and controllers that die before, during and after each step of an operation.

Whatever happens: the next run completes or undoes it, a customer is on one node at the most, and nothing is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import registry_fleet
from tests.e2e.broken_tools import GO, WAIT, stand_ins, waiting
from tests.e2e.registry_fleet import RegistryFleet, names_of
from tests.e2e.started_playbook import finish
from tests.e2e.waiting import wait_for
from tests.e2e.wg7 import configs
from tests.lab.namespaces import processes_in
from tests.lab.node import Node

lab = registry_fleet.lab
fleet = registry_fleet.fleet


# -- nodes that cannot be reached


@contextmanager
def out_of_reach(node: Node, fault: str) -> Iterator[Callable[[int], None]]:
    """A node that is dead or frozen; or dies as soon as the given number of module calls is at work on it."""
    with ExitStack() as stack:
        if fault == "killed at work":
            stack.enter_context(stand_ins(node))
            node.run(["sh", "-c", WAIT])
        elif fault == "killed":
            node.kill()
        else:
            node.freeze()

        def at_work(number: int) -> None:
            if fault == "killed at work":
                wait_for(node, waiting(number))
                node.kill()

        yield at_work
        if fault == "frozen":
            node.thaw()
        else:
            node.boot()


@pytest.mark.parametrize(
    ("fleet", "fault", "then"),
    [
        ("sqlite", "frozen", "reconcile"),
        ("sqlite", "killed at work", "again"),
        ("sqlite", "killed", "again"),
        ("postgresql", "killed", "reconcile"),
        ("postgresql", "frozen", "again"),
        ("postgresql", "killed at work", "reconcile"),
    ],
    indirect=["fleet"],
)
def test_a_node_that_cannot_be_reached(fleet: RegistryFleet, fault: str, then: str) -> None:
    """Node 1, where a customer is disconnected, one removed, one taken away, one brought, and one made."""
    names = names_of(*(f"{what} {fault}" for what in ("down", "gone", "leaving", "coming", "new")))
    down, gone, leaving, coming, new = names
    told = fleet.provision({down: "node1", gone: "node1", leaving: "node1", coming: "node2"})
    interface = {name: one["interface"] for name, one in told.items()}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("disconnect", {"instance": down}),
        ("remove", {"instance": gone}),
        ("transfer", {"instance": leaving, "node": "node2"}),
        ("transfer", {"instance": coming, "node": "node1"}),
        ("provision", {"instance": new, "node": "node1", "peers": [{"name": "phone"}]}),
    ]
    before = fleet.instance(coming)
    assert before is not None

    with out_of_reach(fleet.nodes["node1"], fault) as at_work:
        started = [fleet.start(playbook, **given) for playbook, given in asked]
        at_work(len(started))
        runs = finish(*started)
        places = fleet.places(interface[leaving], "node2"), fleet.places(interface[coming], "node2")

    assert [run.code for run in runs] == [2, 0, 0, 2, 2], [run.output for run in runs]
    for run in runs:
        assert "node node1 cannot be reached: " in run.told, run.output
    result = {name: run.result for name, run in zip(names, runs, strict=True)}
    assert (result[down]["code"], result[down]["pending"]) == (500, True)
    kept = fleet.instance(down)
    assert kept is not None
    assert (kept.state, kept.applied) == ("disconnected", False)
    assert (result[gone]["code"], result[gone]["pending"]) == (207, True)
    assert fleet.instance(gone) is None
    assert (result[leaving]["code"], result[leaving]["pending"]) == (200, True)
    assert fleet.node_of(leaving) == "node2"
    assert (result[coming]["code"], result[coming]["pending"]) == (500, False)
    after = fleet.instance(coming)
    assert after is not None
    assert (after.node.name, after.listen_port) == ("node2", before.listen_port)
    assert places == ({"node2": "up"}, {"node2": "up"})
    assert (result[new]["code"], result[new]["pending"]) == (500, True)
    interface[new] = result[new]["interface"]
    assert fleet.teardowns() == sorted(
        [
            ("node1", interface[gone], "removed"),
            ("node1", interface[leaving], "transferred"),
            # A call that was on its way may still come to its end there.
            ("node1", interface[coming], "reserved"),
        ]
    )

    ends: dict[str, dict[str, str]] = {
        down: {},
        gone: {},
        leaving: {"node2": "up"},
        coming: {"node2": "up"},
        new: {"node1": "up"},
    }
    if then == "reconcile":
        fleet.done("reconcile", node="node1")
    else:
        ends[coming] = {"node1": "up"}
        runs = finish(*(fleet.start(playbook, **given) for playbook, given in asked))
        assert [run.code for run in runs] == [0, 0, 0, 0, 0], [run.output for run in runs]
        assert [run.result["code"] for run in runs] == [200, 200, 200, 200, 201]
        assert not [run.result for run in runs if run.result["pending"]]
    states = fleet.states()
    assert {name: fleet.places(interface[name], states=states) for name in ends} == ends
    assert fleet.teardowns() == []
    assert not fleet.unfinished()


# -- targets that refuse

_LISTENER = """
import os, socket, sys, time
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("", int(sys.argv[1])))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@contextmanager
def in_the_way(node: Node, listen_port: int, interface: str) -> Iterator[None]:
    """Another program on a port, and another interface of a name."""
    node.run(["sh", "-c", f"python3 -c '{_LISTENER}' {listen_port} >/run/listener 2>&1 </dev/null &"])
    node.run(["ip", "link", "add", interface, "type", "bridge"])
    wait_for(node, "test -s /run/listener")
    try:
        yield
    finally:
        node.run(["sh", "-c", "kill $(cat /run/listener); rm /run/listener"])
        node.run(["ip", "link", "delete", interface])


@pytest.mark.parametrize("fleet", ["postgresql"], indirect=True)
def test_a_target_that_refuses(fleet: RegistryFleet) -> None:
    """All is as it was, and what is in the way is left alone."""
    names = port, name = names_of("port in use", "name in use")
    told = fleet.provision(dict.fromkeys(names, "node1"))
    listen_port, interface = told[port]["listen_port"], told[name]["interface"]

    with in_the_way(fleet.nodes["node2"], listen_port, interface):
        before, nodes = fleet.tables(), fleet.states()
        run = fleet.run("transfer", instances=names, node="node2")
        after, nodes_after = fleet.tables(), fleet.states()

    assert run.code == 2
    assert run.results[port]["message"] == (
        f"{port} stays on node1, nothing has changed for it: node node2: listen_port {listen_port} of "
        f"{told[port]['interface']} is in use by another program on this node"
    )
    assert run.results[name]["message"] == (
        f"{name} stays on node1, nothing has changed for it: node node2: {interface} exists on this node and is not a "
        "WireGuard interface (it is of kind bridge); what may have come up on node2 is taken down by its next reconcile"
    )
    for node, state in nodes_after.items():
        assert (state.interfaces, state.links) == (nodes[node].interfaces, nodes[node].links)
        assert configs(state) == configs(nodes[node])
    for table in ("operation", "audit_entry", "node", "teardown"):  # of a node it is noted that it was seen
        del before[table], after[table]
    assert after == before
    # The name is not to be used there by anybody else, until somebody has had a look at what has it now.
    assert fleet.teardowns() == [("node2", interface, "reserved")]
    fleet.done("transfer", instances=names, node="node2")
    assert [fleet.places(told[one]["interface"]) for one in names] == [{"node2": "up"}] * 2
    assert fleet.teardowns() == []


# -- controllers that are killed


@dataclass(frozen=True)
class Step:
    """Where a run is killed: before its play `wait_at`, or when the module has done its work on node `unheard` and the
    run has not heard of it. `found` is what is on the nodes then."""

    found: dict[str, str]
    wait_at: int = 0
    unheard: str = ""


TRANSFER_STEPS = {
    "recorded": Step({"node1": "up"}, wait_at=2),
    "arrived": Step({"node1": "up", "node2": "up"}, wait_at=3),
    "switched": Step({"node2": "up"}, wait_at=4),
    "arrived-unheard": Step({"node1": "up", "node2": "up"}, unheard="node2"),
    "left-unheard": Step({"node2": "up"}, unheard="node1"),
}
WORST_STEPS = ("switched", "arrived-unheard", "left-unheard")
REMOVE_STEPS = {
    "recorded": Step({"node1": "up"}, wait_at=2),
    "settled": Step({}, wait_at=3),
    "removed-unheard": Step({}, unheard="node1"),
}
#: What the next run does, and where the customer is then.
NEXT_RUNS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "again": ("transfer", {"node": "node2"}, {"node2": "up"}),
    "onward": ("transfer", {"node": "node3"}, {"node3": "up"}),
    "back": ("transfer", {"node": "node1"}, {"node1": "up"}),
    "stay": ("provision", {}, {"node1": "up"}),
    "down": ("disconnect", {}, {}),
    "gone": ("remove", {}, {}),
}
WORST_NEXT_RUNS = ("onward", "back", "gone")


def killed(
    fleet: RegistryFleet, steps: Mapping[str, Step], told: Mapping[str, Any], playbook: str, **asked: Any
) -> None:
    """Run the playbook once for each step, with the instances whose names begin with it, and kill it there."""
    names = {at: [name for name in told if name.startswith(f"{at}--")] for at in steps}
    waiting_there = [
        fleet.start(playbook, wait_at=step.wait_at, instances=names[at], **asked)
        for at, step in steps.items()
        if step.wait_at
    ]
    for run in waiting_there:
        run.wait()
        run.kill()
    for at, step in steps.items():
        if step.unheard:
            kill_unheard(fleet, fleet.nodes[step.unheard], playbook, instances=names[at], **asked)
    states = fleet.states()
    for at, step in steps.items():
        for name in names[at]:
            assert fleet.places(told[name]["interface"], states=states) == step.found, name


def test_the_controller_is_killed_in_a_transfer(fleet: RegistryFleet) -> None:
    steps = {at: step for at, step in TRANSFER_STEPS.items() if fleet.kind == "sqlite" or at in WORST_STEPS}
    nexts = {
        then: given for then, given in NEXT_RUNS.items() if fleet.kind == "sqlite" or then in WORST_NEXT_RUNS
    }
    names = {(at, then): f"{at}--{then}@example.com" for at in steps for then in nexts}
    told = fleet.provision(dict.fromkeys(names.values(), "node1"))
    keys = {name: one["public_key"] for name, one in told.items()}
    with stand_ins(fleet.nodes["node1"]), stand_ins(fleet.nodes["node2"]):
        killed(fleet, steps, told, "transfer", node="node2")

    started = [
        fleet.start(
            playbook, instances=[name for (_at, other), name in names.items() if other == then], **given
        )
        for then, (playbook, given, _places) in nexts.items()
    ]

    for then, run in zip(nexts, finish(*started), strict=True):
        assert run.code == 0, run.output
        assert not [one for one in run.results.values() if one["pending"]], (then, run.results)
    states = fleet.states()
    for (at, then), name in names.items():
        expected = NEXT_RUNS[then][2]
        if (at, then) == ("switched", "stay"):
            expected = {"node2": "up"}  # where it is
        interface = told[name]["interface"]
        assert fleet.places(interface, states=states) == expected, name
        for node in expected:
            assert states[node].interfaces[interface].public_key == keys[name]
        found = fleet.instance(name)
        assert (found is None) == (then == "gone"), name
        if found is not None and expected:
            assert {found.node.name: "up"} == expected, name
            assert found.applied
            assert states[found.node.name].interfaces[interface].listen_port == found.listen_port
    assert fleet.teardowns() == []
    assert not fleet.unfinished()


def test_the_controller_is_killed_in_a_removal(fleet: RegistryFleet) -> None:
    """The next run removes what is left, also when it makes another instance of the same name."""
    names = {(at, then): f"{at}--{then}@example.com" for at in REMOVE_STEPS for then in ("gone", "new")}
    told = fleet.provision(dict.fromkeys(names.values(), "node1"))
    with stand_ins(fleet.nodes["node1"]):
        killed(fleet, REMOVE_STEPS, told, "remove")
    assert [fleet.instance(name) for name in told] == [None] * len(told)

    goes, comes = (
        [name for (_at, other), name in names.items() if other == then] for then in ("gone", "new")
    )
    gone, new = finish(
        fleet.start("remove", instances=goes), fleet.start("provision", instances=comes, node="node2")
    )

    assert (gone.code, new.code) == (0, 0), gone.output + new.output
    for one in gone.results.values():
        # What the killed run has removed from the registry is told by the one that ends it.
        assert (one["code"], one["pending"], one["results"]["errors"]) == (200, False, [])
        assert one["results"]["removed_items"][0]["peers_removed"] == 1
    states = fleet.states()
    for (_at, then), name in names.items():
        assert fleet.places(told[name]["interface"], states=states) == {}
        if then == "new":
            assert new.results[name]["interface"] != told[name]["interface"]
            assert fleet.places(new.results[name]["interface"], states=states) == {"node2": "up"}
    assert fleet.teardowns() == []
    assert not fleet.unfinished()


@pytest.mark.parametrize(("fleet", "alone"), [("sqlite", False), ("postgresql", True)], indirect=["fleet"])
def test_a_call_that_a_killed_run_leaves_behind(fleet: RegistryFleet, alone: bool) -> None:
    """The module works on, on the target of a transfer; the next run waits for it and then takes down what it made.
    Nobody tells Ansible's workers when their playbook alone is killed."""
    (name,) = names_of("left behind")
    told = fleet.provision({name: "node1"})[name]
    target = fleet.nodes["node2"]
    with stand_ins(target):
        target.run(["sh", "-c", WAIT])
        killed = fleet.start("transfer", instance=name, node="node2")
        wait_for(target, waiting(1))
        if alone:
            killed.kill_alone()
        else:
            killed.kill()
        sessions = fleet.sessions()["node2"]
        following = fleet.start("disconnect", instance=name)
        wait_for(target, f"test $(grep -c 'Starting session: command' /var/log/sshd.log) -gt {sessions}")
        time.sleep(1)
        target.run(["sh", "-c", GO])
        run = following.finish()

    assert run.code == 0, run.output
    assert fleet.places(told["interface"]) == {}
    assert fleet.teardowns() == []
    fleet.done("provision", instance=name)
    assert fleet.places(told["interface"]) == {"node1": "up"}


def kill_unheard(fleet: RegistryFleet, at: Node, playbook: str, **asked: Any) -> None:
    """Kill a run when the module has done its work on a node, and before the run hears of it."""
    at.run(["sh", "-c", WAIT])
    started = fleet.start(playbook, **asked)
    wait_for(at, waiting(1))
    started.stop()
    at.run(["sh", "-c", GO])
    wait_for_modules(at)
    started.kill()


def wait_for_modules(node: Node) -> None:
    """Until no module is at work on the node."""
    deadline = time.monotonic() + 60
    while any(_is_python(pid) for pid in processes_in([node.namespace]).get(node.namespace, [])):
        assert time.monotonic() < deadline, "a module does not end"
        time.sleep(0.02)


def _is_python(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").startswith("python")
    except OSError:
        return False
