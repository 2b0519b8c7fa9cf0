"""The demo's customers: their instances and devices, as variables for the playbook and as live tunnels."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.node import Node

#: Every instance's network is in these; a device sends all of them into its tunnel.
_ALL = ("10.71.0.0/16", "fd71::/48")


@dataclass(frozen=True)
class Key:
    private: str
    public: str

    def __repr__(self) -> str:
        return f"Key({self.public})"


@dataclass(frozen=True)
class Peer:
    """A device in an instance; `addresses` are its own, IPv4 and IPv6, without length."""

    key: Key
    preshared: str = field(repr=False)
    addresses: tuple[str, str]


@dataclass
class Instance:
    """wg<number> on a node; `number` is part of its port and its networks."""

    number: int
    node: Node
    key: Key
    peers: list[Peer] = field(default_factory=list)
    state: str = "present"

    @property
    def name(self) -> str:
        return f"wg{self.number}"

    @property
    def port(self) -> int:
        return 51820 + self.number

    @property
    def addresses(self) -> tuple[str, str]:
        """The instance's own addresses, IPv4 and IPv6, without length."""
        return _addresses(self.number, 1)

    @property
    def networks(self) -> tuple[str, str]:
        return f"10.71.{self.number}.0/24", f"fd71:0:0:{self.number}::/64"

    def add_peer(self) -> Peer:
        """A new peer with fresh keys and the next addresses."""
        preshared = _wg("genpsk")
        peer = Peer(new_key(), preshared, _addresses(self.number, len(self.peers) + 2))
        self.peers.append(peer)
        return peer

    def variables(self) -> dict[str, Any]:
        """The instance as an element of `wireguard_instances`."""
        if self.state != "present":
            return {"name": self.name, "state": self.state}
        four, six = self.addresses
        return {
            "name": self.name,
            "private_key": self.key.private,
            "listen_port": self.port,
            "addresses": [f"{four}/24", f"{six}/64"],
            "peers": [
                {
                    "public_key": peer.key.public,
                    "preshared_key": peer.preshared,
                    "allowed_ips": [f"{peer.addresses[0]}/32", f"{peer.addresses[1]}/128"],
                }
                for peer in self.peers
            ],
        }


def new_key() -> Key:
    private = _wg("genkey")
    return Key(private, _wg("pubkey", private))


def write_inventory(directory: Path, lab: Lab, instances: list[Instance]) -> Path:
    """Write the inventory as an operator keeps it, hosts.yml and a file of host_vars per node; hosts.yml's path."""
    host_vars = directory / "host_vars"
    host_vars.mkdir(parents=True, exist_ok=True)
    hosts = directory / "hosts.yml"
    hosts.write_text(lab.inventory.read_text(encoding="utf-8"), encoding="utf-8")
    for node in lab.nodes:
        mine = [instance.variables() for instance in instances if instance.node == node]
        text = yaml.safe_dump({"wireguard_instances": mine}, sort_keys=False)
        path = host_vars / f"{node.name}.yml"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return hosts


def connect(lab: Lab, device: Device, instance: Instance, peer: Peer) -> None:
    """Bring up a device's tunnel to its instance, with the lab's internet behind it."""
    four, six = peer.addresses
    device.connect(
        peer.key.private,
        [f"{four}/32", f"{six}/128"],
        instance.key.public,
        f"{instance.node.address}:{instance.port}",
        [*_ALL, lab.addresses.gateway, lab.addresses.gateway6],
        peer.preshared,
    )


def connect_second(device: Device, instance: Instance, peer: Peer) -> None:
    """Bring up one more tunnel on a device that has one, for the instance's own networks alone."""
    four, six = peer.addresses
    lines = [
        "[Interface]",
        f"PrivateKey = {peer.key.private}",
        f"Address = {four}/32, {six}/128",
        "[Peer]",
        f"PublicKey = {instance.key.public}",
        f"PresharedKey = {peer.preshared}",
        f"Endpoint = {instance.node.address}:{instance.port}",
        f"AllowedIPs = {', '.join(instance.networks)}",
    ]
    device.write("/etc/wireguard/wg1.conf", "\n".join(lines) + "\n", 0o600)
    device.run(["wg-quick", "up", "wg1"])


def _addresses(instance: int, host: int) -> tuple[str, str]:
    return f"10.71.{instance}.{host}", f"fd71:0:0:{instance}::{host}"


def _wg(command: str, stdin: str | None = None) -> str:
    done = subprocess.run(["wg", command], check=True, capture_output=True, text=True, input=stdin)
    return done.stdout.strip()
