"""A lab node for tests of the modules: empty before and after, and with a customer on it who must notice nothing.

The fixtures are taken into a test module by assignment: `node = wg_node.node`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.node_state import Interface, read_state
from tests.e2e.wireguard_keys import private_key, public_key
from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.node import Node

BYSTANDER = "wgby"
BYSTANDER_PORT = 19999
BYSTANDER_GATEWAY = "10.250.0.1"

# Takes all of WireGuard off a node but the bystander; wireguard-go leaves its socket a moment later.
_EMPTY = f"""
for link in $(ls /sys/class/net); do
    case $link in lo | eth0 | {BYSTANDER}) ;; *) ip link delete "$link" ;; esac
done
tries=100
while ls /run/wireguard | grep -v '^{BYSTANDER}[.]sock$' >/dev/null && [ $tries -gt 0 ]; do
    tries=$((tries - 1)); sleep 0.05
done
find /etc/wireguard /run/vpnfleet -mindepth 1 ! -name '{BYSTANDER}.*' -delete 2>/dev/null
rm -rf /run/hooks /var/wireguard
"""


def empty(node: Node) -> None:
    """Take every interface and file of WireGuard off the node but the bystander's."""
    node.run(["sh", "-c", _EMPTY])


@dataclass(frozen=True)
class Bystander:
    """Another customer's instance on the node, with a device that is connected."""

    node: Node
    device: Device

    def state(self) -> Interface:
        return read_state(self.node).interfaces[BYSTANDER]

    def check(self, before: Interface) -> None:
        """The instance is as it was, and the session too: same endpoint, same handshake, and packets pass."""
        after = self.state()
        assert after == before
        for key, peer in before.peers.items():
            now = after.peers[key]
            assert now.endpoint == peer.endpoint
            assert now.handshake >= peer.handshake > 0
            assert now.received >= peer.received
            assert now.sent >= peer.sent
        assert self.device.ping(BYSTANDER_GATEWAY, timeout=5).lost == 0


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    """The first node of the lab, without WireGuard."""
    node = lab.nodes[0]
    empty(node)
    yield node
    empty(node)


@pytest.fixture(scope="module")
def bystander(lab: Lab, node: Node) -> Iterator[Bystander]:
    """Another customer on the node, made by wg-quick, and connected."""
    device = lab.devices[2]
    node.write(
        f"/etc/wireguard/{BYSTANDER}.conf",
        f"[Interface]\nPrivateKey = {private_key('bystander')}\nListenPort = {BYSTANDER_PORT}\n"
        f"Address = {BYSTANDER_GATEWAY}/24\n"
        f"[Peer]\nPublicKey = {public_key('bystander device')}\nAllowedIPs = 10.250.0.2/32\n",
        0o600,
    )
    node.run(["wg-quick", "up", BYSTANDER])
    device.connect(
        private_key("bystander device"),
        "10.250.0.2/32",
        public_key("bystander"),
        f"{node.address}:{BYSTANDER_PORT}",
        "10.250.0.0/24",
    )
    assert device.ping(BYSTANDER_GATEWAY, count=1, timeout=20).lost == 0
    yield Bystander(node, device)
    device.disconnect()
    node.run(["wg-quick", "down", BYSTANDER])
    node.run(["rm", "-f", f"/etc/wireguard/{BYSTANDER}.conf"])
