"""Runs at the same moment: one of them gets an instance, and nothing is given to two."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

from tests.e2e import registry_fleet
from tests.e2e.registry_fleet import RegistryFleet

lab = registry_fleet.lab
fleet = registry_fleet.fleet


def test_one_of_two_runs_gets_the_instance(fleet: RegistryFleet) -> None:
    """Two transfers to different nodes, and two removals."""
    asked: dict[str, list[tuple[str, dict[str, str]]]] = {
        "moved@example.com": [("transfer", {"node": "node2"}), ("transfer", {"node": "node3"})],
        "removed@example.com": [("remove", {}), ("remove", {})],
    }
    told = fleet.provision(dict.fromkeys(asked, "node1"))

    # Both wait behind the first play: by then, one of them has got it, and the other one has not.
    started = {
        name: [fleet.start(playbook, wait_at=2, instance=name, **given) for playbook, given in both]
        for name, both in asked.items()
    }
    for name, both in started.items():
        for run in both:
            run.wait()
        (held,) = (one for one in fleet.operations(name) if one.state == "running")
        for run in both:
            run.go()
        winner, refused = sorted((run.finish() for run in both), key=lambda run: run.code)

        assert (refused.code, refused.published["code"]) == (2, 409)
        (message,) = refused.errors
        assert message.startswith(f"{name} is busy: {held.kind} {held.id} is at work on it since ")
        assert winner.code == 0, winner.output
        assert winner.result["operation_id"] == held.id
        assert [one.state for one in fleet.operations(name)] == ["succeeded", "succeeded"]
        target = held.request.get("node")
        assert fleet.places(told[name]["interface"]) == ({target: "up"} if target else {})
    assert fleet.teardowns() == []


def test_fifty_instances_at_once(fleet: RegistryFleet) -> None:
    """By ten processes; nobody says on which node."""
    lists = [[f"c{process}-{number}@example.com" for number in range(5)] for process in range(10)]

    def provision(names: list[str]) -> dict[str, dict[str, Any]]:
        wanted = [{"instance": name, "peers": [{"name": "phone"}, {"name": "tablet"}]} for name in names]
        return fleet.done("provision", instances=wanted).results

    with ThreadPoolExecutor(6) as pool:
        told = {name: one for results in pool.map(provision, lists) for name, one in results.items()}

    assert sorted(told) == sorted(name for names in lists for name in names)
    assert len({one["instance_id"] for one in told.values()}) == 50
    assert len({(one["node"], one["listen_port"]) for one in told.values()}) == 50
    for family in (0, 1):
        networks = sorted(ip_network(one["addresses"][family], strict=False) for one in told.values())
        assert not [pair for pair in pairwise(networks) if pair[0].overlaps(pair[1])]
    given = [network for one in told.values() for peer in one["peers"] for network in peer["allowed_ips"]]
    assert len(set(given)) == len(given) == 50 * 2 * 2
    assert len({one["public_key"] for one in told.values()}) == 50
    states = fleet.states()
    assert {one["node"] for one in told.values()} == set(states)
    for one in told.values():
        running = states[one["node"]].interfaces[one["interface"]]
        assert running.up
        assert (running.public_key, running.listen_port) == (one["public_key"], one["listen_port"])
        assert running.addresses >= set(one["addresses"])
        assert {key: sorted(peer.allowed_ips) for key, peer in running.peers.items()} == {
            peer["public_key"]: sorted(peer["allowed_ips"]) for peer in one["peers"]
        }
