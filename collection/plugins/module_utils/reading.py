# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what a node runs: a few commands for any number of interfaces."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Sequence, Set, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import check_interface_address
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import find, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import (
    BrokenFile,
    beside_digest,
    parse_beside,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump, parse_dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused, WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import (
    ADDRESSES,
    HERE,
    UNREADABLE,
    Source,
    routes_command,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    InterfaceState,
    Link,
    Route,
    Unit,
)

# Up to so many interfaces are read one by one; above, one command reads all that there are.
ONE_BY_ONE = 3


@dataclass
class Node:
    """One reading of a node."""

    links: Dict[str, Link] = field(default_factory=dict)
    kinds: Dict[str, str] = field(default_factory=dict)  # "wireguard", "tun", "dummy", …; "" for hardware
    devices: Dict[str, Device] = field(default_factory=dict)
    unreadable: Dict[str, str] = field(default_factory=dict)  # interface -> why wg could not read it
    dumps: List[Tuple[Optional[str], str]] = field(
        default_factory=list
    )  # what was read: of which interface, text
    routes: Dict[str, FrozenSet[Route]] = field(default_factory=dict)
    default_device: Optional[str] = None  # where the node's own default route goes
    source: Source = HERE

    def wireguard(self) -> Set[str]:
        """All interfaces that are WireGuard's, also those that were not asked for and so are not in `devices`."""
        found = {
            name for name, kind in self.kinds.items() if kind == "wireguard" or self.source.has_socket(name)
        }
        return found | self.devices.keys()

    def now(self, name: str, state: InterfaceState) -> None:
        """Take note that interface `name` is `state` from now on, for those that come after it in the same run."""
        for known in (self.links, self.devices, self.routes):
            known.pop(name, None)
        if state.device is not None and state.link is not None:
            self.links[name], self.devices[name], self.routes[name] = state.link, state.device, state.routes

    def default_mtu(self) -> int:
        """What wg-quick would choose: the MTU of the way out less 80 bytes for WireGuard's own headers."""
        way_out = self.links.get(self.default_device or "")
        return (way_out.mtu if way_out and way_out.mtu else 1500) - 80


def read_node(interfaces: Optional[List[str]] = None, source: Source = HERE) -> Node:
    """Read links, devices and routes of `interfaces`, or of all. Raises WireGuardError when a reading fails."""
    node = Node(source=source)
    entries = _json(ADDRESSES, source.addresses())
    if not entries:
        # Each node has a lo. What follows from no links at all is that all interfaces are missing.
        raise WireGuardError(f"{' '.join(ADDRESSES)} did not answer")
    for entry in entries:
        name = entry.get("ifname")
        if not name:
            continue
        node.kinds[name] = entry.get("linkinfo", {}).get("info_kind", "")
        node.links[name] = Link(
            up="UP" in entry.get("flags", ()),
            mtu=entry.get("mtu"),
            addresses=frozenset(
                check_interface_address(f"{address['local']}/{address['prefixlen']}", name)
                for address in entry.get("addr_info", ())
                if "local" in address
            ),
        )
    _read_devices(node, interfaces)
    _read_routes(node)
    return node


def _read_devices(node: Node, interfaces: Optional[List[str]]) -> None:
    if interfaces is not None and len(interfaces) <= ONE_BY_ONE:
        for name in interfaces:
            if node.kinds.get(name) not in ("wireguard", "tun"):
                continue
            result = node.source.dump(name)
            if result.returncode == 0:
                node.dumps.append((name, result.stdout))
                node.devices.update(parse_dump(result.stdout, name))
            elif node.kinds[name] == "wireguard" or node.source.has_socket(name):
                node.unreadable[name] = result.stderr.strip()
        return
    result = node.source.dump("all")
    if result.returncode != 0 and not UNREADABLE.search(result.stderr):
        raise IncompleteDump(f"wg show all dump failed: {result.stderr.strip()}")
    node.dumps.append((None, result.stdout))
    node.devices.update(parse_dump(result.stdout))
    for name, why in UNREADABLE.findall(result.stderr):
        node.unreadable[name] = why
    for name, kind in node.kinds.items():
        if name not in node.devices and (
            kind == "wireguard" or (kind == "tun" and node.source.has_socket(name))
        ):
            node.unreadable.setdefault(name, "wg show all dump does not name it")


def _read_routes(node: Node) -> None:
    routes: Dict[str, set[Route]] = {}
    for family in ("-4", "-6"):
        for entry in _json(routes_command(family), node.source.routes(family)):
            device, destination = entry.get("dev"), entry.get("dst", "")
            if not device:
                continue
            if destination == "default":
                if entry.get("table", "main") == "main" and node.default_device is None:
                    node.default_device = device
                destination = "0.0.0.0/0" if family == "-4" else "::/0"
            if entry.get("protocol") == "kernel":
                continue
            if "/" not in destination:
                destination += "/32" if family == "-4" else "/128"
            routes.setdefault(device, set()).add(Route(destination, str(entry.get("table", "main"))))
    node.routes = {device: frozenset(found) for device, found in routes.items()}


def _json(argv: Sequence[str], text: str) -> List[Dict[str, Any]]:
    try:
        found = json.loads(text or "[]")  # as some versions of ip say that there are no routes
    except ValueError:
        raise WireGuardError(f"{' '.join(argv)} did not answer in JSON") from None
    return [entry for entry in found if entry]


def interface_state(
    node: Node, name: str, config_path: str, unit: Optional[Unit], known: Optional[InterfaceState] = None
) -> InterfaceState:
    """All that there is of one interface. A file that reads as in `known` is not parsed again.

    Raises Refused when the name belongs to something else, WireGuardError when something about it could not be read:
    then nothing may be concluded, least of all that it is not there.
    """
    if name in node.unreadable:
        raise WireGuardError(f"{name} is there but cannot be read: {node.unreadable[name] or 'no answer'}")
    if name in node.links and name not in node.devices:
        kind = node.kinds.get(name) or "hardware"
        raise Refused(f"{name} exists on this node and is not a WireGuard interface (it is of kind {kind})")
    found = node.source.file(config_path)
    text = None if found is None else found.text
    config: Optional[Config] = None
    broken: Optional[str] = None
    if text is not None and known is not None and text == known.file:
        config, broken = known.config, known.broken
    elif found is not None:
        device = node.devices.get(name)
        live = device.peers if device else {}
        try:
            if found.peers_digest is None:
                config = parse_beside(found.text, live)
            else:
                config = beside_digest(found.text, found.peers_digest, live)
        except BrokenFile as error:
            broken = str(error)
    return InterfaceState(
        device=node.devices.get(name),
        link=node.links.get(name),
        routes=node.routes.get(name, frozenset()),
        file=text,
        file_is_private=found is None or found.private,
        config=config,
        broken=broken,
        unit=unit,
    )


def listen_ports() -> Dict[str, int]:
    """The listen port of each WireGuard interface on the node."""
    ports: Dict[str, int] = {}
    for line in run(["wg", "show", "all", "listen-port"], check=False).stdout.splitlines():
        name, _tab, port = line.partition("\t")
        if port.isdigit():
            ports[name] = int(port)
    return ports


def port_is_free(port: int) -> bool:
    """Whether no program on the node receives on UDP `port`."""
    families = [(socket.AF_INET, "0.0.0.0")]  # noqa: S104 - that is the question
    if os.path.exists("/proc/net/if_inet6"):
        families.append((socket.AF_INET6, "::"))
    for family, address in families:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A UDP port that is free on the node and not among `taken`."""
    avoid = set(taken)
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
        if port not in avoid and port_is_free(port):
            return port


def have_tools() -> bool:
    """Whether the node has what every step needs."""
    return bool(find("wg") and find("ip"))
