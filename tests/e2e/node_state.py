"""What a node really has of WireGuard, read by wg, ip and cat alone: what the modules say of it is not asked."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lab.node import Node

# wg and ip by the node's own paths: tests put wrappers of the same names before them.
READ_STATE = r"""
PATH=/usr/bin:/usr/sbin:/bin:/sbin
echo "@ dump"; wg show all dump
echo "@ links"; ip -json -details address show
echo "@ routes4"; ip -4 -json route show table all type unicast
echo "@ routes6"; ip -6 -json route show table all type unicast
echo "@ files"
find /etc/wireguard /run/vpnfleet /var/wireguard /run/hooks -type f 2>/dev/null | sort | while read -r file; do
    echo "$file $(stat -c '%a %U' "$file") $(base64 -w0 "$file")"
done
echo "@ sockets"; ls /run/wireguard
"""


@dataclass(frozen=True)
class Peer:
    """A peer that runs; `endpoint` is where it was last seen."""

    allowed_ips: frozenset[str]
    preshared_key: str | None = None
    keepalive: int = 0
    endpoint: str | None = field(default=None, compare=False)
    handshake: int = field(default=0, compare=False)
    received: int = field(default=0, compare=False)
    sent: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Interface:
    """An interface that runs. Routes are (network, table), those of its own subnets left out."""

    private_key: str | None
    public_key: str | None
    listen_port: int
    fwmark: int
    peers: dict[str, Peer]
    up: bool = True
    mtu: int = 0
    addresses: frozenset[str] = frozenset()
    routes: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class File:
    """A file below /etc/wireguard and the like."""

    mode: str
    owner: str
    text: str


@dataclass(frozen=True)
class NodeState:
    """All of it. What a device's traffic changes (handshake, counters, endpoint) does not count for equality."""

    interfaces: dict[str, Interface]
    files: dict[str, File]
    links: dict[str, Any]  # by name: kind, flags, MTU, addresses, of every link
    routes: frozenset[str]  # each as JSON, of every link
    sockets: tuple[str, ...]

    def of(self, name: str) -> tuple[Interface | None, File | None, Any]:
        """What there is of one interface."""
        return self.interfaces.get(name), self.files.get(f"/etc/wireguard/{name}.conf"), self.links.get(name)


def read_state(node: Node) -> NodeState:
    """The node's state, read now."""
    return parse_state(node.run(["sh", "-c", READ_STATE]).stdout)


def parse_state(text: str) -> NodeState:
    """The state out of what READ_STATE printed."""
    parts: dict[str, str] = {}
    for part in text.replace("\r\n", "\n").split("@ ")[1:]:
        name, _, body = part.partition("\n")
        parts[name] = body
    links = {}
    for link in json.loads(parts["links"]):
        if link:
            links[link["ifname"]] = {
                "kind": link.get("linkinfo", {}).get("info_kind", ""),
                "flags": sorted(link["flags"]),
                "mtu": link["mtu"],
                # The kernel gives each new interface another link-local address.
                "addresses": sorted(
                    f"{entry['local']}/{entry['prefixlen']}"
                    for entry in link["addr_info"]
                    if not entry["local"].startswith("fe80:")
                ),
            }
    routes = [
        {**route, "family": family}
        for family in (4, 6)
        for route in json.loads(parts[f"routes{family}"] or "[]")
        if route
    ]
    files = {}
    for line in parts["files"].splitlines():
        path, mode, owner, content = [*line.split(" "), ""][:4]
        files[path] = File(mode, owner, base64.b64decode(content).decode("utf-8", "surrogateescape"))
    return NodeState(
        _interfaces(parts["dump"], links, routes),
        files,
        links,
        frozenset(json.dumps(route, sort_keys=True) for route in routes),
        tuple(parts["sockets"].split()),
    )


def _interfaces(dump: str, links: Mapping[str, Any], routes: list[dict[str, Any]]) -> dict[str, Interface]:
    heads: dict[str, list[str]] = {}
    peers: dict[str, dict[str, Peer]] = {}
    for line in dump.splitlines():
        name, *fields = line.split("\t")
        if len(fields) == 4:
            heads[name], peers[name] = fields, {}
            continue
        key, preshared, endpoint, allowed, handshake, received, sent, keepalive = fields
        peers[name][key] = Peer(
            frozenset() if allowed == "(none)" else frozenset(allowed.split(",")),
            None if preshared == "(none)" else preshared,
            0 if keepalive == "off" else int(keepalive),
            None if endpoint == "(none)" else endpoint,
            int(handshake),
            int(received),
            int(sent),
        )
    found = {}
    for name, (private, public, port, fwmark) in heads.items():
        link = links[name]
        found[name] = Interface(
            None if private == "(none)" else private,
            None if public == "(none)" else public,
            int(port),
            0 if fwmark == "off" else int(fwmark, 16),
            peers[name],
            "UP" in link["flags"],
            link["mtu"],
            frozenset(link["addresses"]),
            frozenset(
                (_network(route["dst"], route["family"]), str(route.get("table", "main")))
                for route in routes
                if route.get("dev") == name and route.get("protocol") != "kernel"
            ),
        )
    return found


def _network(text: str, family: int) -> str:
    everything = "0.0.0.0/0" if family == 4 else "::/0"
    return str(ipaddress.ip_network(everything if text == "default" else text))
