"""The network of the test nodes: a bridge in a namespace of its own, reached from here by one veth.

It needs none of podman's network plugins, which not every machine has, and a node gets a new namespace at
each boot: no interface outlives a reboot, whatever made it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import random
import secrets
from pathlib import Path

from tests.lab import limits
from tests.systemd.command import execute

# Another half of 10/8 than the lab's 10.192.0.0/10.
POOL = ipaddress.IPv4Network("10.128.0.0/10")

_LOCK = Path("/run/lock/vpnfleet-systemd-network.lock")
_BRIDGE, _CONTROLLER, _FIRST_NODE = 1, 2, 11


class Network:
    """One bridge and the nodes plugged into it, on an IPv4 /24 and an IPv6 /64 that nothing here uses yet."""

    def __init__(self, prefix: str | None = None, subnet: ipaddress.IPv4Network = POOL) -> None:
        """A network that is still to be made, by up(), or the one that has this prefix and this subnet."""
        # Names of interfaces hold 15 characters.
        self.prefix = prefix or f"vfs{secrets.token_hex(3)}"
        self.subnet = subnet  # the pool until up()
        self._namespace = f"{self.prefix}-net"
        self._veth = f"{self.prefix}-ctl"
        self._nodes = 0

    def up(self) -> None:
        """Make the bridge and the way to it. Raises CommandFailed; down() then cleans up what there is."""
        _LOCK.parent.mkdir(parents=True, exist_ok=True)
        limits.hold(self.prefix)
        execute(["ip", "netns", "add", self._namespace])
        inside = ["ip", "-n", self._namespace]
        execute([*inside, "link", "set", "lo", "up"])
        execute([*inside, "link", "add", "br0", "type", "bridge"])
        execute([*inside, "link", "set", "br0", "up"])
        execute(["ip", "link", "add", self._veth, "type", "veth", "peer", "ctl", "netns", self._namespace])
        execute([*inside, "link", "set", "ctl", "master", "br0", "up"])
        # Two sessions that start at once must not take the same subnet.
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.subnet = _unused_subnet()
            self._give_addresses(["ip"], self._veth, _CONTROLLER)
            execute(["ip", "link", "set", self._veth, "up"])
        self._give_addresses(inside, "br0", _BRIDGE)

    def down(self) -> None:
        """Remove all of it; does nothing where there is nothing."""
        execute(["ip", "link", "del", self._veth], check=False)
        execute(["ip", "netns", "del", self._namespace], check=False)
        limits.release(self.prefix)

    def next_number(self) -> int:
        """Return the number of a new node: the last part of its addresses."""
        self._nodes += 1
        return _FIRST_NODE + self._nodes - 1

    def address(self, number: int) -> str:
        """Return the IPv4 address with that number."""
        return str(self.subnet[number])

    def address6(self, number: int) -> str:
        """Return the IPv6 address with that number."""
        _, second, third, _ = self.subnet.network_address.packed
        return str(ipaddress.IPv6Address(f"fd00:0:{second:x}:{third:x}::{number:x}"))

    def plug(self, namespace: str, number: int) -> None:
        """Make `namespace` anew, its eth0 on the bridge and its default routes by way of the bridge."""
        self.unplug(namespace, number)
        port = f"port{number}"
        execute(["ip", "netns", "add", namespace])
        # The same hardware address at each boot, as a machine has: a new one would have to time out in the
        # neighbours' tables first.
        _, second, third, fourth = ipaddress.IPv4Address(self.address(number)).packed
        hardware = f"02:00:0a:{second:02x}:{third:02x}:{fourth:02x}"
        ends = ["eth0", "address", hardware, "netns", namespace]
        ends += ["type", "veth", "peer", port, "netns", self._namespace]
        execute(["ip", "link", "add", *ends])
        execute(["ip", "-n", self._namespace, "link", "set", port, "master", "br0", "up"])
        inside = ["ip", "-n", namespace]
        execute([*inside, "link", "set", "lo", "up"])
        self._give_addresses(inside, "eth0", number)
        execute([*inside, "link", "set", "eth0", "up"])
        execute([*inside, "route", "add", "default", "via", self.address(_BRIDGE)])
        execute([*inside, "-6", "route", "add", "default", "via", self.address6(_BRIDGE)])

    def unplug(self, namespace: str, number: int) -> None:
        """Take the node off the bridge, its namespace gone; does nothing where there is nothing."""
        execute(["ip", "-n", self._namespace, "link", "del", f"port{number}"], check=False)
        execute(["ip", "netns", "del", namespace], check=False)

    def _give_addresses(self, ip: list[str], interface: str, number: int) -> None:
        execute([*ip, "address", "add", f"{self.address(number)}/24", "dev", interface])
        # No waiting for duplicate address detection: the addresses are ours to give.
        execute([*ip, "address", "add", f"{self.address6(number)}/64", "dev", interface, "nodad"])


def _unused_subnet() -> ipaddress.IPv4Network:
    """Return a /24 of POOL that no route of this machine touches."""
    routes = json.loads(execute(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout)
    named = [route["dst"] for route in routes if route["dst"] != "default"]
    used = [ipaddress.IPv4Network(destination) for destination in named]
    while True:
        address = POOL.network_address + 256 * random.randrange(POOL.num_addresses // 256)
        subnet = ipaddress.IPv4Network((address, 24))
        if not any(subnet.overlaps(other) for other in used if other.prefixlen > POOL.prefixlen):
            return subnet
