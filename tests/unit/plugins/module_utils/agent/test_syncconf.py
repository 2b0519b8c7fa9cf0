"""What a syncconf may change: peers, and nothing else."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import syncconf as module
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import NOTHING
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState
from tests.unit.plugins.module_utils.generated import by_key, key, peer, running

CONFIG = f"[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0.2/32\n"


def edited(actual: InterfaceState) -> Desired:
    asked = module._Asked(base64.b64encode(CONFIG.encode()).decode(), NOTHING)
    return module._edit(Desired("wg0", enabled=None), actual, asked)


def test_only_the_peers_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "require_whole", lambda _devices: None)  # there is no interface to ask
    there = running(by_key(peer(1, "10.0.0.1/32")))
    wanted = Desired("wg0", enabled=None, peers=by_key(peer(1, "10.0.0.2/32")))
    assert edited(there) == wanted
    assert edited(dataclasses.replace(there, file=None, config=None)) == wanted


def test_a_file_that_cannot_be_understood_is_not_written_anew() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32")), table="off")
    there = dataclasses.replace(
        there,
        file=f"{there.file}PostUp\n",
        config=None,
        broken="line 9: is neither a section nor key = value",
    )
    with pytest.raises(
        Refused,
        match=r"^/etc/wireguard/wg0\.conf cannot be understood \(line 9: is neither .*\): repair or remove it$",
    ):
        edited(there)
