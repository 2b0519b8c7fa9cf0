"""Made-up instances of any size, as wg_instance's `src` takes them."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from pathlib import Path
from typing import Any


def key() -> str:
    """32 random bytes in base64: as good as a public key for one who only stores it."""
    return base64.b64encode(os.urandom(32)).decode("ascii")


def instance(name: str, port: int, subnet: str, peers: int) -> dict[str, Any]:
    """An instance with `peers` peers, each with one address out of `subnet`."""
    network = ipaddress.ip_network(subnet)
    first = network.network_address
    return {
        "name": name,
        "private_key": key(),
        "listen_port": port,
        "addresses": [f"{first + 1}/{network.prefixlen}"],
        "peers": [
            {"public_key": key(), "allowed_ips": [f"{first + 2 + number}/32"]} for number in range(peers)
        ],
    }


def write(path: Path, instances: list[dict[str, Any]]) -> Path:
    """Write a file for `src`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"wireguard_instances": instances}), encoding="utf-8")
    return path


def wg_quick_file(entry: dict[str, Any]) -> str:
    """The instance as one would write it by hand for wg-quick: with routes for the peers, its default."""
    lines = ["[Interface]", f"PrivateKey = {entry['private_key']}", f"ListenPort = {entry['listen_port']}"]
    lines += [f"Address = {address}" for address in entry["addresses"]]
    for peer in entry["peers"]:
        lines += ["", "[Peer]", f"PublicKey = {peer['public_key']}"]
        lines += [f"AllowedIPs = {', '.join(peer['allowed_ips'])}"]
    return "\n".join(lines) + "\n"
