"""Which addresses a lab has: one /16 out of 10.192.0.0/10 and one unique local /64 for IPv6."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.lab.errors import LabError

#: The second octet of the lab named `lab`: fixed, because inventories/lab is committed with its addresses.
DEFAULT_BLOCK = 213
MOST_HOSTS_OF_A_KIND = 250

_BLOCKS = range(192, 256)


@dataclass(frozen=True)
class Addresses:
    """The address plan of one lab. `block` is the second octet of its IPv4 network."""

    block: int

    @property
    def network(self) -> str:
        return f"10.{self.block}.0.0/16"

    @property
    def network6(self) -> str:
        return f"fd76:706e:{self.block}::/64"

    @property
    def gateway(self) -> str:
        """The bridge: every host's default route, and the "internet" that tunnels reach by masquerade."""
        return f"10.{self.block}.0.1"

    @property
    def gateway6(self) -> str:
        return f"fd76:706e:{self.block}::1"

    @property
    def controller(self) -> str:
        """The machine that runs the lab, as its hosts see it."""
        return f"10.{self.block}.0.2"

    @property
    def controller6(self) -> str:
        return f"fd76:706e:{self.block}::2"

    def node(self, number: int) -> tuple[str, str]:
        """IPv4 and IPv6 address of node `number`, counted from 1."""
        return f"10.{self.block}.1.{number}", f"fd76:706e:{self.block}::1:{number}"

    def device(self, number: int) -> tuple[str, str]:
        """IPv4 and IPv6 address of device `number`, counted from 1."""
        return f"10.{self.block}.2.{number}", f"fd76:706e:{self.block}::2:{number}"


def pick_block(default_lab: bool) -> int:
    """A block that overlaps nothing this machine has an address or a route in.

    Raises LabError where there is none. The default lab has only one to pick from.
    """
    taken = _networks_of_this_machine()
    candidates = [DEFAULT_BLOCK] if default_lab else [block for block in _BLOCKS if block != DEFAULT_BLOCK]
    for block in candidates:
        network = ipaddress.IPv4Network(Addresses(block).network)
        if not any(network.overlaps(other) for other in taken):
            return block
    if default_lab:
        raise LabError(
            f"{Addresses(DEFAULT_BLOCK).network} is in use on this machine; "
            "give the lab a name of its own (--name) and it takes other addresses"
        )
    raise LabError("no free network left in 10.192.0.0/10")


def _networks_of_this_machine() -> list[ipaddress.IPv4Network]:
    """The networks of addresses and routes, without those wide ones that a lab's /16 may cut a hole into."""
    found = [
        f"{address['local']}/{address['prefixlen']}"
        for link in _ip_json(["address", "show"])
        for address in link["addr_info"]
    ]
    found += [route["dst"] for route in _ip_json(["route", "show", "table", "all"])]
    networks = [ipaddress.IPv4Network(text, strict=False) for text in found if text != "default"]
    return [network for network in networks if network.prefixlen >= 10]


def _ip_json(arguments: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-4", "-json", *arguments], check=True, capture_output=True, text=True)
    # `ip -json` shows links without an address of this family as empty objects.
    return [entry for entry in json.loads(done.stdout or "[]") if entry]
