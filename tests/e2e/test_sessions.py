"""A customer's device notices nothing while other peers come and go, by the hundred, and neither does its own session
when something of its own peer changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import Task, play, task
from tests.e2e.node_state import Peer, read_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key, public_key
from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node

GATEWAY, ADDRESS, PORT = "10.20.0.1", "10.20.0.2/32", 20020
DEVICE: dict[str, Any] = {
    "public_key": public_key("session"),
    "allowed_ips": [ADDRESS],
    "preshared_key": preshared_key("session"),
}
INSTANCE: dict[str, Any] = {
    "name": "wg20",
    "private_key": private_key("session node"),
    "listen_port": PORT,
    "addresses": [f"{GATEWAY}/16"],
}


@dataclass(frozen=True)
class Session:
    """A device that is connected to wg20."""

    node: Node
    device: Device

    def peer(self) -> Peer:
        """What the node knows of it."""
        return read_state(self.node).interfaces["wg20"].peers[DEVICE["public_key"]]

    def peer_count(self) -> int:
        return len(read_state(self.node).interfaces["wg20"].peers)

    def roam(self, port: int) -> None:
        """Go on from another port, as behind a NAT that has forgotten the old one."""
        self.device.run(["wg", "set", "wg0", "listen-port", str(port)])
        assert self.device.ping(GATEWAY, count=1, timeout=20).lost == 0
        assert self.peer().endpoint == f"{self.device.address}:{port}"


@pytest.fixture
def session(lab: Lab, node: Node) -> Iterator[Session]:
    empty(node)
    device = lab.devices[0]
    given = play(lab, node, [task("given", "wg_instance", {**INSTANCE, "peers": [DEVICE]})])["given"]
    assert not given.failed, given.message
    device.connect(
        private_key("session"),
        ADDRESS,
        public_key("session node"),
        f"{node.address}:{PORT}",
        "10.20.0.0/16",
        preshared_key=preshared_key("session"),
    )
    assert device.ping(GATEWAY, count=1, timeout=20).lost == 0
    yield Session(node, device)
    device.disconnect()
    empty(node)


def others(count: int, turn: int) -> list[dict[str, Any]]:
    """So many other peers; in each turn they have other networks, keys and keepalives. Every tenth needs a route."""
    found = []
    for number in range(count):
        high, low = divmod(number, 250)
        net = f"10.2{turn}.{high}.{low}/32" if number % 10 == 0 else f"10.20.{10 * turn + high}.{low}/32"
        peer: dict[str, Any] = {"public_key": peer_key(f"other {number}"), "allowed_ips": [net]}
        if (number + turn) % 2:
            peer["preshared_key"] = preshared_key(f"other {number}")
        if (number + turn) % 3 == 0:
            peer["persistent_keepalive"] = 20 + turn
        found.append(peer)
    return found


def by_instance(count: int, folder: Path) -> list[Task]:
    """Other peers added, changed and removed by wg_instance."""
    tasks = []
    for name, peers in {"add": others(count, 1), "change": others(count, 2), "remove": []}.items():
        (folder / f"{name}.json").write_text(json.dumps([{**INSTANCE, "peers": [DEVICE, *peers]}]))
        asked = {"src": str(folder / f"{name}.json"), "max_removals": count}
        tasks.append(task(name, "wg_instance", asked))
    return tasks


def by_peer(count: int, folder: Path) -> list[Task]:  # noqa: ARG001
    """The same by wg_peer."""
    gone = [{"public_key": peer["public_key"], "state": "absent"} for peer in others(count, 1)]
    return [
        task("add", "wg_peer", {"interface": "wg20", "peers": others(count, 1)}),
        task("change", "wg_peer", {"interface": "wg20", "peers": others(count, 2)}),
        task("remove", "wg_peer", {"interface": "wg20", "peers": gone}),
    ]


@pytest.mark.parametrize(
    ("way", "count"),
    [(by_instance, 500), (by_peer, 500), (by_instance, 1200)],
    ids=["500 by wg_instance", "500 by wg_peer", "1200 by wg_instance"],
)
def test_no_packet_is_lost_while_others_come_and_go(
    lab: Lab, session: Session, way: Any, count: int, tmp_path: Path
) -> None:
    before = session.peer()
    ping = session.device.start_ping(GATEWAY, interval=0.01)
    assert ping.wait_for_reply()
    run = play(lab, session.node, way(count, tmp_path))
    result = ping.stop()
    for name, counter in (("add", "added"), ("change", "updated"), ("remove", "removed")):
        answer = run[name].answer
        assert not run[name].failed, run[name].message
        assert (answer.get("instances") or [answer])[0][f"peers_{counter}_count"] == count
    assert result.sent > 20
    assert result.lost == 0
    after = session.peer()
    assert session.peer_count() == 1
    assert after.endpoint == before.endpoint
    assert after.handshake >= before.handshake > 0
    assert after.received > before.received
    assert after.sent > before.sent


CHANGED = {**DEVICE, "allowed_ips": [ADDRESS, "10.20.7.0/24"], "persistent_keepalive": 25}


@pytest.mark.parametrize(
    "asked",
    [
        {"peers": [CHANGED]},
        {"peers": [DEVICE], "mtu": 1400, "fwmark": 3, "addresses": [f"{GATEWAY}/16", "10.29.0.1/24"]},
        {"peers": [DEVICE, *others(1100, 1)]},
        {"peers": [CHANGED, *others(1100, 1)]},
    ],
    ids=["its own peer changes", "the interface changes", "a thousand others", "all of it"],
)
def test_the_place_to_which_a_device_roamed_is_kept(
    lab: Lab, session: Session, asked: dict[str, Any]
) -> None:
    session.roam(40001)
    before = session.peer()
    run = play(lab, session.node, [task("real", "wg_instance", {**INSTANCE, **asked})])
    assert run["real"].changed, run["real"].message
    after = session.peer()
    assert after.endpoint == before.endpoint
    assert after.handshake == before.handshake > 0
    assert after.received >= before.received > 0
    assert after.sent >= before.sent > 0
    assert session.device.ping(GATEWAY, count=3, interval=0.05, timeout=5).lost == 0


@pytest.mark.parametrize("count", [3, 1100], ids=["few others", "a thousand others"])
def test_an_endpoint_asked_for_is_no_order_to_come_back(lab: Lab, session: Session, count: int) -> None:
    endpoint = f"{session.device.address}:40100"
    session.device.run(["wg", "set", "wg0", "listen-port", "40100"])
    asked = {**INSTANCE, "peers": [{**DEVICE, "endpoint": endpoint}]}
    play(lab, session.node, [task("given", "wg_instance", asked)])
    session.roam(40200)
    more = {**asked, "peers": [*asked["peers"], *others(count, 1)]}
    alive = {**more, "peers": [{**more["peers"][0], "persistent_keepalive": 25}, *more["peers"][1:]]}
    steps = {"same": asked, "more": more, "alive": alive}
    run = play(lab, session.node, [task(name, "wg_instance", step) for name, step in steps.items()])
    assert not run["same"].failed, run["same"].message
    assert not run["same"].changed
    assert run["more"].changed, run["more"].message
    assert run["alive"].changed, run["alive"].message
    assert session.peer().keepalive == 25
    assert session.peer().endpoint == f"{session.device.address}:40200"
    assert endpoint in session.node.read("/etc/wireguard/wg20.conf")


def test_a_lost_file_is_written_anew_around_the_session(lab: Lab, session: Session) -> None:
    before = session.peer()
    session.node.run(["rm", "/etc/wireguard/wg20.conf"])
    ping = session.device.start_ping(GATEWAY, interval=0.05)
    assert ping.wait_for_reply()
    run = play(lab, session.node, [task("real", "wg_instance", {"name": "wg20"})])
    assert ping.stop().lost == 0
    assert run["real"].changed
    assert (session.peer().endpoint, session.peer().handshake) == (before.endpoint, before.handshake)
    assert "Endpoint" not in session.node.read("/etc/wireguard/wg20.conf")
