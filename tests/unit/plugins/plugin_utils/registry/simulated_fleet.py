"""The nodes of a fleet, in memory: they take what operation_converge sends to wg_instance, and answer as it does.

As the module does, a node refuses an interface whose port, key or networks another one has: what the registry allocates
must never come to that.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from netaddr import IPNetwork


class Weather(Enum):
    """How it is to work with a node."""

    FINE = "fine"
    UNREACHABLE = "nothing comes through"
    LOST = "the node does it all, and then the connection breaks"
    CRASHES = "the module dies half-way"
    REFUSES = "the module answers with an error for each interface, and leaves it as it was"


def nothing(_point: str) -> None:
    """For whoever does not watch."""


@dataclass
class SimulatedNode:
    """`up`: the interfaces that are up, as they were asked for."""

    up: dict[str, dict[str, Any]] = field(default_factory=dict)
    weather: Weather = Weather.FINE


@dataclass
class SimulatedFleet:
    """Nodes by name; `calls` says which node was called for what: name and state of each interface."""

    nodes: dict[str, SimulatedNode]
    calls: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)

    def call(
        self, name: str, instances: Sequence[dict[str, Any]], at: Callable[[str], None] = nothing
    ) -> dict[str, Any]:
        """wg_instance on the node `name`, which a kill may interrupt wherever `at` is called.

        Raises AnsibleConnectionFailure as Ansible does, for a node that cannot be reached.
        """
        node = self.nodes[name]
        self.calls.append((name, [(one["name"], one["state"]) for one in instances]))
        at(f"before {name} is called")
        if node.weather is Weather.UNREACHABLE:
            raise AnsibleConnectionFailure(
                f"Failed to connect to the host via ssh: {name} is down\r\nand more"
            )
        if len({one["name"] for one in instances}) != len(instances):
            return {"failed": True, "msg": "instances: an interface is there twice"}
        answers = []
        for index, wanted in enumerate(instances):
            if node.weather is Weather.CRASHES and index == len(instances) // 2:
                return {"failed": True, "msg": "MODULE FAILURE\nSee stdout/stderr for the exact error"}
            answers.append(_serve(node, wanted))
            at(f"while {name} is called")
        if node.weather is Weather.LOST:
            raise AnsibleConnectionFailure(f"Connection to {name} closed by remote host.")
        failed = any("error" in answer for answer in answers)
        return {
            "changed": any(answer["changed"] for answer in answers),
            "instances": answers,
            **({"failed": True, "msg": "not all of them"} if failed else {}),
        }

    def where(self, interface: str) -> list[str]:
        """The nodes on which an interface is up."""
        return sorted(name for name, node in self.nodes.items() if interface in node.up)

    def everything(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Node, interface and what it was asked to be, of all that is up."""
        for name, node in self.nodes.items():
            for interface, wanted in node.up.items():
                yield name, interface, wanted

    def set_weather(self, weather: Weather, *names: str) -> None:
        """Of these nodes, or of all."""
        for name in names or self.nodes:
            self.nodes[name].weather = weather


def _serve(node: SimulatedNode, wanted: dict[str, Any]) -> dict[str, Any]:
    name = wanted["name"]
    answer: dict[str, Any] = {"name": name, "state": wanted["state"], "changed": False}
    problem = "refused" if node.weather is Weather.REFUSES else _problem(node, wanted)
    if problem is not None:
        return {**answer, "error": problem}
    before = node.up.get(name)
    expected = wanted.get("public_key")
    if before is not None and expected is not None and public_key_of(before["private_key"]) != expected:
        return answer if wanted["state"] != "present" else {**answer, "error": f"{name} has another key"}
    if wanted["state"] == "present":
        after = copy.deepcopy(wanted)
        after.pop("public_key", None)
        if not after.pop("purge_peers", True) and before is not None:
            keys = {peer["public_key"] for peer in wanted["peers"]}
            after["peers"] += [peer for peer in before["peers"] if peer["public_key"] not in keys]
        node.up[name] = after
        answer["changed"] = before is None or meaning(before) != meaning(after)
    else:
        node.up.pop(name, None)
        answer["changed"] = before is not None
    return answer


def public_key_of(private_key: str) -> str:
    """What `wg pubkey` says."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _problem(node: SimulatedNode, wanted: dict[str, Any]) -> str | None:
    if wanted["state"] != "present":
        return None
    for name, other in node.up.items():
        if name == wanted["name"]:
            continue
        if other["listen_port"] == wanted["listen_port"]:
            return f"port {wanted['listen_port']} is that of {name}"
        if other["private_key"] == wanted["private_key"]:
            return f"the key is that of {name}"
        for mine in wanted["addresses"]:
            for theirs in other["addresses"]:
                if IPNetwork(mine) in IPNetwork(theirs) or IPNetwork(theirs) in IPNetwork(mine):
                    return f"{mine} overlaps with {theirs} of {name}"
    return None


def meaning(wanted: dict[str, Any]) -> dict[str, Any]:
    """Without the order of peers, and what only the registry knows of them."""
    peers = {
        peer["public_key"]: (
            sorted(peer["allowed_ips"]),
            peer.get("preshared_key"),
            peer["persistent_keepalive"],
        )
        for peer in wanted["peers"]
    }
    return {**{name: value for name, value in wanted.items() if name != "public_key"}, "peers": peers}
