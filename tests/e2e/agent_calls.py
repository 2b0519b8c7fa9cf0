"""An agent that runs on a node, an interface there, and what is sent for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.agent.client import Client
from tests.agent.running import Agent, running
from tests.e2e.node_state import NodeState, read_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer_key, private_key
from tests.lab.node import Node

INTERFACE = {
    "name": "wg0",
    "private_key": private_key("agent wg0"),
    "listen_port": 20080,
    "addresses": ["10.80.0.1/16"],
}
CONFIG = "/etc/wireguard/wg0.conf"
PATH = "/v1/wg/wg0/syncconf"
DONE = {"status": "success", "message": "Configuration synchronized successfully"}
FAILED = "Failed to synchronize configuration: "


def section(name: str, *networks: str, **more: Any) -> str:
    lines = ["[Peer]", f"PublicKey = {peer_key(name)}", f"AllowedIPs = {', '.join(networks)}"]
    return "\n".join(lines + [f"{key} = {value}" for key, value in more.items()]) + "\n\n"


def many(count: int, turn: int = 0) -> str:
    """So many peers; in each turn, with other keepalives."""
    return "".join(
        section(
            f"many {number}", f"10.80.{1 + number // 250}.{number % 250}/32", PersistentKeepalive=20 + turn
        )
        for number in range(count)
    )


A, B = section("a", "10.80.0.2/32"), section("b", "10.80.0.3/32")


def encoded(config: str) -> str:
    return base64.b64encode(config.encode()).decode()


@pytest.fixture(scope="module")
def agent(node: Node) -> Iterator[Agent]:
    with running(node) as agent:
        yield agent


@pytest.fixture(scope="module")
def client(agent: Agent) -> Client:
    return agent.client()


@pytest.fixture
def wg0(node: Node, client: Client) -> Iterator[NodeState]:
    """The interface with two peers."""
    empty(node)
    made = client.module("wg_instance", INTERFACE)
    assert not made.body.get("failed"), made.body
    assert client.syncconf("wg0", A + B).body == DONE
    yield read_state(node)
    empty(node)


def peers_of(node: Node) -> set[str]:
    return set(node.run(["wg", "show", "wg0", "peers"]).stdout.split())


def unchanged(node: Node, before: NodeState) -> None:
    after = read_state(node)
    assert after.of("wg0") == before.of("wg0")
    assert after.files[CONFIG] == before.files[CONFIG]
