"""Interfaces to compare with what should be there, and a module that finds them on its node."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift, drift_repair, traces
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Device,
    InterfaceState,
    Link,
    Peer,
)
from tests.unit.plugins.module_utils.generated import (
    POOL_NETWORKS,
    ROAMED,
    by_key,
    peer,
    peer_map,
    running,
)

many = settings(max_examples=5 * settings().max_examples)
peer_maps = st.integers(0, 2**64 - 1).map(lambda seed: peer_map(Random(seed), POOL_NETWORKS, ROAMED))


def alive(live: dict[str, Peer]) -> InterfaceState:
    there = running(live)
    return dataclasses.replace(there, device=dataclasses.replace(there.device, peers=live))  # type: ignore[type-var]


HEALTHY = running(by_key(peer(1, "10.0.0.1/32")), addresses=("10.0.0.1/24",))
DEVICE: Device = HEALTHY.device  # type: ignore[assignment]
LINK: Link = HEALTHY.link  # type: ignore[assignment]


def node_with(*names: str, kind: str = "wireguard", up: bool = True) -> Node:
    return Node(
        links={name: Link(up, 1420, frozenset()) for name in names},
        kinds=dict.fromkeys(names, kind),
        devices=dict.fromkeys(names, DEVICE) if kind == "wireguard" else {},
    )


def stand_in(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, InterfaceState], node: Node | None = None
) -> None:
    """Let the module find these interfaces on the node. What was not asked for is not read."""
    monkeypatch.setattr(drift_repair, "read_node", lambda _names: node or Node())
    monkeypatch.setattr(traces, "traces", lambda _folder: {})
    for module in (drift, drift_repair):
        monkeypatch.setattr(module, "require_whole", lambda _devices, _source=None: None)
    monkeypatch.setattr(
        drift, "states_of", lambda _node, wanted: {one.name: states[one.name] for one in wanted}
    )
