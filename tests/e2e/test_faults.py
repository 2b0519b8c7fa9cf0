"""Faults of a node: a clear message, all or nothing, and the customer next door notices nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import wg7, wg_node
from tests.e2e.ansible_run import Result, play, script, task
from tests.e2e.broken_tools import FOLDER, WORK_AS_EVER, hidden, order, stand_ins
from tests.e2e.node_state import read_state
from tests.e2e.waiting import wait_for
from tests.e2e.wg7 import CHANGED, CONFIG, GONE, RUNNING, A, B, C, configs, given
from tests.e2e.wg_node import BYSTANDER, BYSTANDER_PORT
from tests.e2e.wireguard_keys import peer, peer_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander
others_notice_nothing = wg7.others_notice_nothing


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


STRANGER = peer("x", "10.7.0.9/32", "10.79.0.0/24")


def test_nothing_is_concluded_wherever_an_answer_is_cut_short(lab: Lab, node: Node) -> None:
    """Also at the end of a line, where it looks as if there were fewer peers: those that were not seen would be thrown
    out of the file, and off the interface."""
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "peer added": ("wg_peer", {"interface": "wg7", **C}),
        "peers as they are": ("wg_instance", {"name": "wg7", "mtu": 1300}),
        "look": ("wg_drift", {"interface": "wg7", "peers": [A, B, STRANGER]}),
        "reconcile": ("wg_drift", {"interface": "wg7", "peers": [A, B, C], "reconcile_missing": True}),
    }
    with stand_ins(node):
        before = given(lab, node, {**RUNNING, "peers": [A, B, STRANGER]})
        size = len(node.run(["wg", "show", "wg7", "dump"]).stdout)
        cuts = [
            "lines-1",
            "lines-2",
            "lines-3",
            f"ended-{size // 2}",
            f"bytes-{size // 2}",
            f"bytes-{size - 1}",
        ]
        tasks = []
        for cut in cuts:
            tasks.append(script(cut, order(0, cut)))
            for name, (module, arguments) in asked.items():
                tasks.append(task(f"{name} {cut}", module, arguments))
        run = play(lab, node, tasks)
        node.run(["sh", "-c", WORK_AS_EVER])
    for cut in cuts:
        for name in asked:
            result = run[f"{name} {cut}"]
            assert result.failed, (name, cut)
            assert not result.changed, (name, cut)
            assert "wg show" in result.message, (name, cut)
    after = read_state(node)
    assert after.of("wg7") == before.of("wg7")


def test_a_peer_that_wg_refuses_holds_up_no_other(lab: Lab, node: Node) -> None:
    """Whether it is to be added, updated or removed."""
    new = [peer(f"new {number}", f"10.7.1.{number}/32") for number in range(5)]
    asked = {"interface": "wg7", "peers": [{**A, "persistent_keepalive": 7}, B, *new]}
    everything = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": True}
    refused = {"add": new[3], "update": A, "remove": STRANGER}
    tasks = []
    for action, culprit in refused.items():
        broken = f"echo {culprit['public_key']} >{FOLDER}/refused; {order(0, 'refuse')}"
        tasks += [
            task(f"given {action}", "wg_instance", {**RUNNING, "peers": [A, B, STRANGER]}),
            script(f"broken {action}", broken),
            task(action, "wg_drift", {**asked, **everything}),
            script(f"works {action}", WORK_AS_EVER),
            task(f"{action} again", "wg_drift", {**asked, **everything}),
        ]
    with stand_ins(node):
        run = play(lab, node, tasks)
    for action, culprit in refused.items():
        assert not run[f"given {action}"].failed
        result, again = run[action], run[f"{action} again"]
        assert not result.failed, result.message
        assert result.changed
        done = result.answer["reconciled"]
        (error,) = done["errors"]
        assert (error["peer"], error["interface"], error["action"]) == (culprit["public_key"], "wg7", action)
        assert "No buffer space available" in error["error"]
        for kind, peers in {"added": new, "updated": [A], "removed": [STRANGER]}.items():
            keys = [one["public_key"] for one in peers if one is not culprit]
            assert sorted(done[kind]) == sorted(keys), (action, kind)
        assert again.answer["summary"]["total_issues"] == 1
        assert again.answer["reconciled"]["errors"] == []
        assert again.changed


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
