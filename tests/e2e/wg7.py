"""wg7, the interface that tests break, change and take down, and what they ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.ansible_run import Run, Task, play, script, task
from tests.e2e.broken_tools import FOLDER, WORK_AS_EVER
from tests.e2e.node_state import READ_STATE, NodeState, parse_state, read_state
from tests.e2e.wg_node import Bystander, empty
from tests.e2e.wireguard_keys import peer, preshared_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

SECRET = preshared_key("a")
A = peer(
    "a",
    "10.7.0.2/32",
    "fd00:7::2/128",
    preshared_key=SECRET,
    persistent_keepalive=25,
    endpoint="192.0.2.1:5100",
)
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
    "peers": [peer("a", "10.7.0.22/32", endpoint="192.0.2.2:5200"), C],
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


def configs(found: NodeState) -> dict[str, Any]:
    return {path: file for path, file in found.files.items() if path.startswith("/etc/")}
