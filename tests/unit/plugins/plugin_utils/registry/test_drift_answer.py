"""What an agent answers to a look: a report, or an error of its node. Who is root there may have it say anything."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from ansible_collections.vpnfleet.wireguard.plugins.action.operation_drift import ActionModule
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_answer import understood
from tests.unit.plugins.plugin_utils.answering_server import Server, answering

PROBLEM = "what its agent answers is no report on drift"
DIFFERENCE = {"field": "allowed_ips", "expected": ["10.0.0.2/32"], "actual": []}
PEER = {"interface": "wg1", "public_key": "K="}
KNOWN = {**PEER, "name": "phone", "peer_id": None}
LISTS = {
    "unknown_peers": [{**PEER, "allowed_ips": ["10.0.0.9/32"], "endpoint": None, "persistent_keepalive": 0}],
    "missing_peers": [{**KNOWN, "allowed_ips": ["10.0.0.3/32"]}],
    "mismatched_peers": [{**KNOWN, "mismatches": [DIFFERENCE]}],
    "interface_issues": [
        {"interface": "wg1", "field": "enabled at boot", "expected": True, "actual": False},
        {"interface": "wg1", "field": "listen_port", "expected": 51820, "actual": None},
    ],
}
REPORT: dict[str, Any] = {
    **LISTS,
    "has_drift": True,
    "summary": {
        "unknown_count": 1,
        "missing_count": 12,
        "mismatched_count": 1,
        "interface_count": 2,
        "total_issues": 16,
    },
    "truncated": True,
}
NOTHING = {
    **{name: [] for name in LISTS},
    "has_drift": False,
    "summary": dict.fromkeys(REPORT["summary"], 0),
    "truncated": False,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The report with something else in one place."""
    answer = copy.deepcopy(REPORT)
    where: Any = answer
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        where = where[step]
    where[last] = value
    return answer


def test_a_report_is_taken_as_it_is() -> None:
    assert understood({**REPORT, "changed": False, "diff": "x" * 1000}) == REPORT
    assert understood({name: value for name, value in NOTHING.items() if name != "truncated"}) == NOTHING


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("missing_peers", {}),
        ("missing_peers", ["wg1"]),
        ("missing_peers.0.name", 7),
        ("missing_peers.0.allowed_ips", [["10.0.0.3/32"]]),
        ("mismatched_peers.0.mismatches", [{"field": "allowed_ips"}]),
        ("mismatched_peers.0.mismatches.0.actual", {"a": "b"}),
        ("unknown_peers.0.interface", None),
        ("unknown_peers.0.persistent_keepalive", True),
        ("unknown_peers.0.public_key", ["K="]),
        ("interface_issues.0.actual", 1.5),
        ("summary", []),
        ("summary.missing_count", "12"),
        # A database takes no such number, and there is no such number of peers.
        ("summary.missing_count", 2**31),
        ("summary.unknown_count", 0),
        ("summary.mismatched_count", -1),
    ],
)
def test_what_is_no_report(path: str, value: Any) -> None:
    with pytest.raises(WireGuardError, match=PROBLEM):
        understood(changed(path, value))


@pytest.mark.parametrize("answer", [{"has_drift": True}, changed("summary.total_issues", "all of them")])
def test_a_look_by_an_agent_gives_a_report_or_an_error(answer: dict[str, Any]) -> None:
    server = Server(answering(answer))
    try:
        task = SimpleNamespace(args={}, check_mode=False, async_val=0, diff=False, action="operation_drift")
        action = ActionModule(task, SimpleNamespace(), SimpleNamespace(), DataLoader(), None, None)
        look = action._by_agent(Agent(server.url, "5ecre7" * 10, None), "nl1.example.com", [], 10)
        if "summary" in answer:
            assert look() == REPORT
        else:
            with pytest.raises(WireGuardError, match=PROBLEM):
                look()
    finally:
        server.close()
