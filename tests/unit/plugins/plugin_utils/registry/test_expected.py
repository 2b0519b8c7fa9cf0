"""What nodes should run is the same read in bulk, for a look, and node by node, for the module and the agent."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import check_expected
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import drift
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.expected import expected
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from tests.unit.plugins.plugin_utils.registry.simulated_names import DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.mark.parametrize("overrides", [{}, {"override_keepalive": 30, "override_mtu": 1380}])
def test_both_ways_say_the_same(controller: Controller, overrides: dict[str, int]) -> None:
    peers = [
        {"name": "phone", "preshared_key": KEY},
        {"name": "laptop", "persistent_keepalive": 25},
    ]
    # wg and Python write this one in different ways.
    router = {"name": "router", "allowed_ips": ["::ffff:192.0.2.0/124"]}
    for name, where in (("alice", NL), ("bob", NL), ("carl", DE)):
        controller.play("provision", instance=f"{name}@example.com", node=where, peers=peers)
    controller.play("provision", instance="dora@example.com", node=DE, peers=[router])
    controller.play("disconnect", instance="bob@example.com")
    with controller.registry.write() as session:
        apply_nodes(session, [{"name": name, **overrides} for name in (NL, DE)])
    with controller.registry.read() as session:
        nodes = list(session.scalars(select(Node)))
        assert session.scalars(select(Instance.state)).all().count("disconnected") == 1
        in_bulk = expected(session, [node.id for node in nodes])
        for node in nodes:
            one_by_one = check_expected({"interfaces": drift.wanted(session, node).interfaces})
            assert {one.interface: one for one in in_bulk[node.id]} == {
                one.interface: one for one in one_by_one
            }
        assert any(one.peers for found in in_bulk.values() for one in found)
