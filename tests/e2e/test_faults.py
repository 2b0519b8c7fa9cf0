"""Faults of a node: a clear message, all or nothing, and the customer next door notices nothing."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import Result, Run, Task, finish_play, play, script, start_play, task
from tests.e2e.broken_tools import FOLDER, WORK_AS_EVER, calls, hidden, order, stand_ins
from tests.e2e.node_state import READ_STATE, NodeState, parse_state, read_state
from tests.e2e.wg_node import BYSTANDER, BYSTANDER_PORT, Bystander, empty
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander


def peer(name: str, *allowed_ips: str, **fields: Any) -> dict[str, Any]:
    return {"public_key": peer_key(name), "allowed_ips": list(allowed_ips), **fields}


SECRET = preshared_key("a")
A = peer("a", "10.7.0.2/32", "fd00:7::2/128", preshared_key=SECRET, persistent_keepalive=25)
B = peer("b", "10.7.0.3/32", "10.71.0.0/24")
C = peer("c", "10.7.0.4/32", "10.72.0.0/24", preshared_key=preshared_key("c"))
RUNNING: dict[str, Any] = {
    "name": "wg7",
    "private_key": private_key("wg7"),
    "listen_port": 20007,
    "addresses": ["10.7.0.1/24", "fd00:7::1/64"],
    "mtu": 1420,
    "fwmark": 0,
    "peers": [A, B],
}
# Everything that can change at once.
CHANGED: dict[str, Any] = {
    "name": "wg7",
    "private_key": private_key("other"),
    "listen_port": 20017,
    "addresses": ["10.7.0.1/24", "10.77.0.1/24", "fd00:77::1/64"],
    "mtu": 1300,
    "fwmark": 7,
    "peers": [peer("a", "10.7.0.22/32"), C],
}
GONE = {"name": "wg7", "state": "disconnected"}
CONFIG = "/etc/wireguard/wg7.conf"


@pytest.fixture(autouse=True)
def others_notice_nothing(node: Node, bystander: Bystander) -> Iterator[None]:
    """Every test begins without wg7, and ends with the other customer's session as it was."""
    empty(node)
    node.write("/run/read-state", READ_STATE)
    session = bystander.state()
    yield
    bystander.check(session)
    empty(node)


def state(name: str) -> Task:
    """Read the state; from then on, the tools work as ever."""
    return script(name, f"if [ -d {FOLDER} ]; then {WORK_AS_EVER}; fi; sh /run/read-state")


def state_of(run: Run, name: str) -> NodeState:
    return parse_state(run[name].stdout)


def given(lab: Lab, node: Node, asked: dict[str, Any] = RUNNING) -> NodeState:
    """Make an interface; returns what the node then is."""
    result = play(lab, node, [task("given", "wg_instance", asked)])["given"]
    assert not result.failed, result.message
    return read_state(node)


def attempt(lab: Lab, node: Node, asked: dict[str, Any], module: str = "wg_instance") -> Result:
    """Check mode and the real run, which must fail alike and leave the node as it is."""
    before = read_state(node)
    run = play(lab, node, [task("check", module, asked, check=True), task("real", module, asked)])
    after = read_state(node)
    assert after.interfaces == before.interfaces
    assert after.links == before.links
    assert after.routes == before.routes
    assert configs(after) == configs(before)
    assert run["real"].failed
    assert not run["real"].changed
    assert run["check"].failed
    assert run["check"].message == run["real"].message
    return run["real"]


def configs(found: NodeState) -> dict[str, Any]:
    return {path: file for path, file in found.files.items() if path.startswith("/etc/")}


# -- names that belong to others


@pytest.mark.parametrize("kind", ["bridge", "tun"])
@pytest.mark.parametrize(
    ("module", "asked"),
    [
        ("wg_instance", RUNNING),
        ("wg_instance", {"name": "wg7", "state": "absent"}),
        ("wg_peer", {"interface": "wg7", "public_key": peer_key("a"), "state": "absent"}),
        ("wg_drift", {"interface": "wg7", "peers": [], "remove_unknown": True}),
    ],
    ids=["present", "absent", "wg_peer", "wg_drift"],
)
def test_an_interface_of_another_kind_is_left_alone(
    lab: Lab, node: Node, kind: str, module: str, asked: dict[str, Any]
) -> None:
    made = ["tuntap", "add", "wg7", "mode", "tun"] if kind == "tun" else ["link", "add", "wg7", "type", kind]
    node.run(["ip", *made])
    node.run(["ip", "address", "add", "10.7.0.99/24", "dev", "wg7"])
    result = attempt(lab, node, asked, module)
    says = rf"(wg7: )?wg7 exists on this node and is not a WireGuard interface \(it is of kind {kind}\)"
    assert re.match(says, result.message), result.message


# -- ports


@pytest.mark.parametrize("listener", ["another instance", "IPv4", "IPv6"])
@pytest.mark.parametrize("runs", [False, True], ids=["new interface", "running interface"])
def test_a_port_in_use_is_named(lab: Lab, node: Node, listener: str, runs: bool) -> None:
    if runs:
        given(lab, node)
    if listener == "another instance":
        result = attempt(lab, node, {**RUNNING, "listen_port": BYSTANDER_PORT})
        holder = BYSTANDER
    else:
        node.run(["sh", "-c", f"python3 -c '{_LISTENER}' {listener} 20777 >/run/listener 2>&1 </dev/null &"])
        wait_for(node, "test -s /run/listener")
        result = attempt(lab, node, {**RUNNING, "listen_port": 20777})
        node.run(["sh", "-c", "kill $(cat /run/listener); rm /run/listener"])
        holder = "another program"
    port = BYSTANDER_PORT if listener == "another instance" else 20777
    assert result.message == f"wg7: listen_port {port} of wg7 is in use by {holder} on this node"


_LISTENER = """
import os, socket, sys, time
six = sys.argv[1] == "IPv6"
family = socket.AF_INET6 if six else socket.AF_INET
listener = socket.socket(family, socket.SOCK_DGRAM)
if six: listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
listener.bind(("", int(sys.argv[2])))
print(os.getpid(), flush=True)
time.sleep(600)
"""


def wait_for(node: Node, condition: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while node.run(["sh", "-c", condition], check=False).returncode != 0:
        assert time.monotonic() < deadline, f"{condition} does not come true"
        time.sleep(0.05)


def test_the_port_of_an_interface_whose_file_alone_is_left(lab: Lab, node: Node) -> None:
    given(lab, node, {**RUNNING, "listen_port": 20777})
    node.run(["ip", "link", "delete", "wg7"])
    node.run(["sh", "-c", f"python3 -c '{_LISTENER}' IPv4 20777 >/run/listener 2>&1 </dev/null &"])
    wait_for(node, "test -s /run/listener")
    result = attempt(lab, node, {"name": "wg7"})
    node.run(["sh", "-c", "kill $(cat /run/listener); rm /run/listener"])
    assert result.message == "wg7: listen_port 20777 of wg7 is in use by another program on this node"


# -- disks


@pytest.fixture
def small_disk(node: Node) -> Iterator[None]:
    """/etc/wireguard on a disk of 16 KiB."""
    node.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", "/etc/wireguard"])
    yield
    node.run(["umount", "/etc/wireguard"])


FILL = "dd if=/dev/zero of=/etc/wireguard/full bs=1k 2>/dev/null; true"
MANY = [*RUNNING["peers"], *(peer(f"many {n}", f"10.7.1.{n}/32") for n in range(1, 250))]


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("fault", ["full disk", "read-only disk"])
@pytest.mark.parametrize("runs", [False, True], ids=["new interface", "running interface"])
def test_a_disk_that_takes_no_file(lab: Lab, node: Node, fault: str, runs: bool) -> None:
    if runs:
        given(lab, node)
    node.run(["sh", "-c", FILL if fault == "full disk" else "mount -o remount,ro /etc/wireguard"])
    before = read_state(node)
    result = play(lab, node, [task("real", "wg_instance", {**RUNNING, "peers": [*MANY]})])["real"]
    after = read_state(node)
    reason = "No space left on device" if fault == "full disk" else "Read-only file system"
    assert result.failed
    assert result.message.startswith(f"wg7: {CONFIG} cannot be written: {reason} (undone")
    assert (after.interfaces, after.links, after.routes) == (before.interfaces, before.links, before.routes)
    assert configs(after) == configs(before)
    if fault == "full disk":
        node.run(["rm", "/etc/wireguard/full"])
    else:
        node.run(["mount", "-o", "remount,rw", "/etc/wireguard"])
    assert not play(lab, node, [task("again", "wg_instance", CHANGED)])["again"].failed


@pytest.mark.parametrize("module", ["wg_instance", "wg_peer"])
def test_a_folder_where_the_file_should_be(lab: Lab, node: Node, module: str) -> None:
    given(lab, node)
    node.run(["sh", "-c", f"rm {CONFIG}; mkdir -p {CONFIG}/x"])
    asked = CHANGED if module == "wg_instance" else {"interface": "wg7", **C}
    assert attempt(lab, node, asked, module).message == f"wg7: {CONFIG} cannot be read: Is a directory"


# -- files


def test_a_broken_file_is_not_thrown_away_with_its_key(lab: Lab, node: Node) -> None:
    node.write(CONFIG, f"[Interface]\nPrivateKey = {private_key('wg7')}\nnonsense\n", 0o600)
    result = attempt(lab, node, {"name": "wg7", "peers": [B]})
    assert f"wg7: {CONFIG} cannot be understood (line 3: " in result.message
    assert "so its private key would be lost" in result.message
    after = given(lab, node)
    assert after.interfaces["wg7"].private_key == private_key("wg7")


def test_a_peer_is_not_added_to_what_only_a_file_is(lab: Lab, node: Node) -> None:
    given(lab, node)
    node.run(["ip", "link", "delete", "wg7"])
    result = attempt(lab, node, {"interface": "wg7", **C}, "wg_peer")
    assert result.message == "wg7: only its config file is there; bring it up with wg_instance first"


# -- programs


@pytest.mark.parametrize("runs", [False, True], ids=["new interface", "running interface"])
@pytest.mark.parametrize(("program", "package"), [("wg", "wireguard-tools"), ("ip", "iproute2")])
def test_a_missing_program_is_named(lab: Lab, node: Node, program: str, package: str, runs: bool) -> None:
    if runs:
        given(lab, node)
    before = read_state(node)
    asked = {
        "wg_instance": CHANGED,
        "wg_peer": {"interface": "wg7", **C},
        "wg_drift": {"interface": "wg7", "peers": []},
    }
    if not runs:
        # That an interface is missing can be told without wg.
        del asked["wg_drift"]
    with hidden(node, program):
        run = play(lab, node, [task(module, module, asked[module]) for module in asked])
    for module in asked:
        assert run[module].failed
        assert f"{program} is not on this node: install {package}" in run[module].message
    after = read_state(node)
    assert (after.interfaces, after.links, after.routes) == (before.interfaces, before.links, before.routes)
    assert configs(after) == configs(before)


def test_check_mode_on_a_node_that_is_still_to_be_prepared(lab: Lab, node: Node) -> None:
    chosen = {key: value for key, value in RUNNING.items() if key not in ("private_key", "listen_port")}
    with hidden(node, "wg"):
        run = play(
            lab,
            node,
            [
                task("given", "wg_instance", RUNNING, check=True),
                task("chosen", "wg_instance", chosen, check=True),
            ],
        )
    for name in ("given", "chosen"):
        assert not run[name].failed, run[name].message
        assert run[name].changed
        assert len(run[name].diff) == 1


def test_no_wireguard_at_all(lab: Lab, node: Node) -> None:
    before = read_state(node)
    with hidden(node, "wireguard-go"):
        result = play(lab, node, [task("real", "wg_instance", RUNNING)])["real"]
    assert result.failed
    assert re.match(
        r"wg7: wg7 cannot be made: the kernel has no WireGuard \(.*\) and wireguard-go is not installed .*"
        r" \(undone: wg7 is as it was before\)",
        result.message,
        re.DOTALL,
    ), result.message
    after = read_state(node)
    assert (after.links, after.routes, configs(after)) == (before.links, before.routes, configs(before))


# -- commands that fail, and runs that are killed


SCENARIOS = {
    "created": (GONE, RUNNING),
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


def test_a_change_that_does_not_take_is_undone(lab: Lab, node: Node) -> None:
    with stand_ins(node):
        before = given(lab, node)
        node.run(["sh", "-c", order(0, "lose")])
        result = play(lab, node, [task("real", "wg_instance", {**RUNNING, "peers": [A, B, C]})])["real"]
        node.run(["sh", "-c", WORK_AS_EVER])
    assert result.failed
    assert "read back after applying, wg7 still needs: add 1 peer" in result.message
    assert "undone" in result.message
    after = read_state(node)
    assert after.of("wg7") == before.of("wg7")


# -- wg that does not tell all


@pytest.mark.parametrize("what", ["half", "died"])
@pytest.mark.parametrize(
    ("module", "asked"),
    [
        ("wg_instance", CHANGED),
        ("wg_instance", GONE),
        ("wg_peer", {"interface": "wg7", **C}),
        ("wg_drift", {"interface": "wg7", "peers": [], "remove_unknown": True}),
        ("wg_info", {}),
    ],
    ids=["present", "disconnected", "wg_peer", "wg_drift", "wg_info"],
)
def test_nothing_is_concluded_from_half_an_answer(
    lab: Lab, node: Node, what: str, module: str, asked: dict[str, Any]
) -> None:
    with stand_ins(node):
        before = given(lab, node)
        node.run(["sh", "-c", order(0, what)])
        result = play(lab, node, [task("real", module, asked)])["real"]
        node.run(["sh", "-c", WORK_AS_EVER])
    assert result.failed
    assert not result.changed
    assert "wg show" in result.message or "wg7 is there but cannot be read" in result.message, result.message
    after = read_state(node)
    assert after.of("wg7") == before.of("wg7")


def test_one_interface_that_cannot_be_read_does_not_hold_up_the_others(lab: Lab, node: Node) -> None:
    others = [
        {**RUNNING, "name": f"wg{n}", "listen_port": 20000 + n, "addresses": [f"10.{n}.0.1/24"], "peers": []}
        for n in (8, 9, 10)
    ]
    with stand_ins(node):
        before = given(lab, node)
        node.run(["sh", "-c", order(0, "deny")])
        run = play(
            lab,
            node,
            [
                task("real", "wg_instance", {"instances": [CHANGED, *others]}),
                task("down", "wg_instance", {"name": "wg7", "state": "absent"}),
                task("drift", "wg_drift", {"interface": "wg7", "peers": [], "remove_unknown": True}),
                task("info", "wg_info", {}),
            ],
        )
        node.run(["sh", "-c", WORK_AS_EVER])
    after = read_state(node)
    says = "wg7 is there but cannot be read: Permission denied"
    assert run["real"].failed
    assert run["real"].message == f"1 of 4 instances failed. wg7: {says}"
    assert run["down"].failed
    assert (
        says in run["down"].message
        or "Unable to access interface wg7: Permission denied" in run["down"].message
    )
    assert run["drift"].failed
    assert "wg7 is there but cannot be read" in run["drift"].message
    assert run["info"].answer["unreadable"] == {"wg7": "Permission denied"}
    assert after.of("wg7") == before.of("wg7")
    assert {"wg8", "wg9", "wg10"} <= after.interfaces.keys()


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
        time.sleep(4)
        waiting = process.poll() is None
        meanwhile = read_state(node)
        node.run(["rm", "/run/held"])
        run = finish_play(process, Path(folder))
    assert waiting
    assert meanwhile.of("wg7") == before.of("wg7")
    assert not run["real"].failed, run["real"].message
    assert read_state(node).interfaces["wg7"].listen_port == 20017
