"""The demo's customers, and their devices, which they connect by what the result of an operation says."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lab.device import Device


@dataclass(frozen=True)
class Client:
    """A customer's device with the keys that it made itself. The private one never leaves it."""

    device: Device
    public_key: str
    private_key: str = field(repr=False)
    preshared_key: str = field(repr=False)

    def as_peer(self) -> dict[str, str]:
        """The device as an element of provision.yml's `peers`."""
        return {
            "name": self.device.name,
            "public_key": self.public_key,
            "preshared_key": self.preshared_key,
        }

    def addresses(self, served: Mapping[str, Any]) -> list[str]:
        """The device's own addresses, IPv4 and IPv6, with length."""
        mine = next(peer for peer in served["peers"] if peer["public_key"] == self.public_key)
        return [str(network) for network in mine["allowed_ips"]]

    def connect(self, served: Mapping[str, Any]) -> None:
        """Bring up the tunnel with what the result says, as a customer would with the file that is made from it."""
        self.device.connect(
            self.private_key,
            self.addresses(served),
            served["public_key"],
            served["endpoint"],
            served["endpoint_allowed_ip"],
            self.preshared_key,
            served["keepalive"],
        )

    def switch_endpoint(self, endpoint: str) -> None:
        """Change the one line in the device's file that a transfer changes, and take the tunnel down and up."""
        text = self.device.read(_CONFIG)
        lines = [
            f"Endpoint = {endpoint}" if line.startswith("Endpoint") else line for line in text.splitlines()
        ]
        self.device.run(["wg-quick", "down", _CONFIG])
        self.device.write(_CONFIG, "\n".join(lines) + "\n", 0o600)
        self.device.run(["wg-quick", "up", _CONFIG])


@dataclass
class Customer:
    """`served` is what the fleet said last of the customer's instance: a result of provision.yml, and of later
    operations what differs."""

    name: str
    clients: list[Client]
    served: dict[str, Any] = field(default_factory=dict)

    @property
    def email(self) -> str:
        return f"{self.name}@example.com"

    @property
    def first(self) -> Client:
        return self.clients[0]

    @property
    def interface(self) -> str:
        return str(self.served["interface"])

    @property
    def node(self) -> str:
        return str(self.served["node"])

    @property
    def addresses(self) -> tuple[str, str]:
        """The instance's own addresses, IPv4 and IPv6, without length."""
        four, six = self.served["addresses"]
        return _bare(four), _bare(six)

    def request(self) -> dict[str, Any]:
        """The customer as an element of provision.yml's `instances`."""
        return {"instance": self.email, "peers": [client.as_peer() for client in self.clients]}


def new_client(device: Device) -> Client:
    """Fresh keys for a device."""
    private_key = _wg("genkey")
    return Client(device, _wg("pubkey", private_key), private_key, _wg("genpsk"))


def own_addresses(client: Client, served: Mapping[str, Any]) -> list[str]:
    """The device's own addresses without length."""
    return [_bare(address) for address in client.addresses(served)]


_CONFIG = "/etc/wireguard/wg0.conf"


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _wg(command: str, stdin: str | None = None) -> str:
    done = subprocess.run(["wg", command], check=True, capture_output=True, text=True, input=stdin)
    return done.stdout.strip()
