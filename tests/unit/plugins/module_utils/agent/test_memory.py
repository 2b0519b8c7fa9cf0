"""What is remembered of interfaces is bounded, and the last word counts."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import memory
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import NOTHING
from tests.unit.plugins.module_utils.generated import by_key, peer, running


def test_no_more_is_remembered_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMORY", {})
    monkeypatch.setattr(memory, "MOST_INTERFACES", 2)
    reached = [memory.Remembered(running(by_key(peer(number, "10.0.0.2/32")))) for number in range(3)]
    assert memory.recall("wg0") == memory.Remembered(None, NOTHING)
    for name, what in (("wg0", 0), ("wg1", 1), ("wg0", 2)):
        memory.remember(name, reached[what])
    assert [memory.recall(name) for name in ("wg0", "wg1")] == [reached[2], reached[1]]
    memory.remember("wg2", reached[0])
    assert [memory.recall(name) for name in ("wg0", "wg2")] == [memory.Remembered(), reached[0]]
