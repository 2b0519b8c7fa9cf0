"""Commands that fail, runs that are killed and runs that meet: all or nothing, and the next run completes."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wg7, wg_node
from tests.e2e.ansible_run import Task, finish_play, play, script, start_play, task
from tests.e2e.broken_tools import WORK_AS_EVER, calls, order, stand_ins
from tests.e2e.node_state import NodeState, read_state
from tests.e2e.waiting import wait_for
from tests.e2e.wg7 import CHANGED, CONFIG, GONE, RUNNING, configs, given, state, state_of
from tests.e2e.wireguard_keys import peer, peer_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander
others_notice_nothing = wg7.others_notice_nothing


# -- commands that fail, and runs that are killed


# A hook of its own that can fail and be killed, and whose work shows.
HOOKED = {**RUNNING, "post_up": ["ip route replace 10.199.0.0/24 dev %i"]}
SCENARIOS = {
    "created": (GONE, HOOKED),
    "changed": (RUNNING, CHANGED),
    "changed back": (CHANGED, RUNNING),
    "taken down": (RUNNING, GONE),
}
# What these say is not needed: another way is taken, or their answer is not looked at.
MAY_FAIL = ("ip link add dev wg7 type wireguard", "wg show all listen-port")


def trace(
    lab: Lab, node: Node, start: dict[str, Any], asked: dict[str, Any]
) -> tuple[list[str], NodeState, NodeState]:
    """The calls that a run makes, and the node before and after it."""
    before = given(lab, node, {"max_removals": 9, **start})
    node.run(["sh", "-c", WORK_AS_EVER])
    after = given(lab, node, asked)
    return calls(node), before, after


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whichever_command_fails_the_node_is_as_before(lab: Lab, node: Node, scenario: str) -> None:
    start, asked = SCENARIOS[scenario]
    with stand_ins(node):
        made, before, after = trace(lab, node, start, asked)
        given(lab, node, {"max_removals": 9, **start})
        tasks: list[Task] = []
        for number, call in enumerate(made, 1):
            tasks += [
                script(f"order {number}", order(number, "fail")),
                task(f"run {number}", "wg_instance", asked),
                state(f"state {number}"),
            ]
            if call in MAY_FAIL:
                tasks.append(task(f"start {number}", "wg_instance", {"max_removals": 9, **start}))
        run = play(lab, node, tasks)
    failed = 0
    for number, call in enumerate(made, 1):
        found, result = state_of(run, f"state {number}"), run[f"run {number}"]
        if call in MAY_FAIL:
            assert not run[f"start {number}"].failed, run[f"start {number}"].message
            assert not result.failed, (call, result.message)
            assert found.of("wg7") == after.of("wg7"), call
            continue
        failed += 1
        assert result.failed, call
        assert (
            "out of luck" in result.message or "wireguard-go wg7 failed with exit code 7" in result.message
        ), call
        assert not result.changed
        assert found.interfaces == before.interfaces, call
        assert found.links == before.links, call
        assert found.routes == before.routes, call
        assert configs(found) == configs(before), call
    assert failed > 4


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_a_kill_at_any_point_the_next_run_completes(lab: Lab, node: Node, scenario: str) -> None:
    start, asked = SCENARIOS[scenario]
    with stand_ins(node):
        made, before, after = trace(lab, node, start, asked)
        last = max(number for number, call in enumerate(made, 1) if not _only_reads(call))
        points = [
            (number, "kill-after") for number in range(1, last + 1) if not _only_reads(made[number - 1])
        ]
        points = [(points[0][0], "kill-before"), *points]
        tasks: list[Task] = []
        for number, what in points:
            at = f"{what} {number}"
            tasks += [
                task(f"start {at}", "wg_instance", {"max_removals": 9, **start}),
                script(f"order {at}", order(number, what)),
                task(f"run {at}", "wg_instance", asked),
                state(f"killed {at}"),
                task(f"next {at}", "wg_instance", asked),
                state(f"state {at}"),
            ]
        run = play(lab, node, tasks)
    whole = {file.text for found in (before, after) for path, file in found.files.items() if path == CONFIG}
    assert len(points) > 1
    for number, what in points:
        at = f"{what} {number}"
        call = made[number - 1]
        assert not run[f"start {at}"].failed, run[f"start {at}"].message
        assert run[f"run {at}"].failed, f"{call} was not killed"
        assert "out of luck" not in run[f"run {at}"].message
        half = state_of(run, f"killed {at}")
        if CONFIG in half.files:
            assert half.files[CONFIG].text in whole, call
            assert half.files[CONFIG].mode == "600"
        assert not run[f"next {at}"].failed, (call, run[f"next {at}"].message)
        found = state_of(run, f"state {at}")
        assert found.of("wg7") == after.of("wg7"), call
        assert configs(found) == configs(after), call


def _only_reads(call: str) -> bool:
    return bool(re.match(r"wg (show|pubkey|genkey)|ip (-4 |-6 )?-json", call))


# -- two at a time


def test_two_runs_at_the_same_time_lose_nothing(lab: Lab, node: Node) -> None:
    with stand_ins(node), tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        given(lab, node)
        node.run(["sh", "-c", order(0, "slow")])
        started = [
            (start_play(lab, node, [task("add", "wg_peer", {"interface": "wg7", **peer(name, net)})], Path(folder)),
             Path(folder))
            for name, net, folder in (("d", "10.7.0.40/32", one), ("e", "10.7.0.50/32", other))
        ]  # fmt: skip
        runs = [finish_play(process, folder) for process, folder in started]
        node.run(["sh", "-c", WORK_AS_EVER])
        again = play(lab, node, [task("again", "wg_instance", {"name": "wg7"})])["again"]
    for run in runs:
        assert not run["add"].failed, run["add"].message
    added = [peer_key(name) for name in ("a", "b", "d", "e")]
    found = read_state(node)
    assert sorted(found.interfaces["wg7"].peers) == sorted(added)
    assert all(key in found.files[CONFIG].text for key in added)
    assert not again.changed


def test_a_run_waits_for_the_one_before(lab: Lab, node: Node) -> None:
    before = given(lab, node)
    hold = "echo >/run/held; while [ -e /run/held ]; do sleep 0.1; done"
    node.run(["sh", "-c", f"flock /run/vpnfleet/wg7.lock sh -c '{hold}' >/dev/null 2>&1 </dev/null &"])
    wait_for(node, "test -e /run/held")
    with tempfile.TemporaryDirectory() as folder:
        process = start_play(lab, node, [task("real", "wg_instance", CHANGED)], Path(folder))
        wait_for(node, "pgrep '^python'")
        time.sleep(1)  # it asks for the lock at once, and would have done its work by then
        waiting = process.poll() is None
        meanwhile = read_state(node)
        node.run(["rm", "/run/held"])
        run = finish_play(process, Path(folder))
    assert waiting
    assert meanwhile.of("wg7") == before.of("wg7")
    assert not run["real"].failed, run["real"].message
    assert read_state(node).interfaces["wg7"].listen_port == 20017
