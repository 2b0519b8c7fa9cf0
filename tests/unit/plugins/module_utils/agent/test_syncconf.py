"""What a syncconf may change: peers, and nothing else."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import converge
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


def test_only_the_peers_are_asked_for() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32")))
    wanted = Desired("wg0", enabled=None, peers=by_key(peer(1, "10.0.0.2/32")))
    assert edited(there) == wanted
    assert edited(dataclasses.replace(there, file=None, config=None)) == wanted


@pytest.mark.parametrize("file", ["with one more", "gone"])
def test_what_the_file_does_not_bear_out_is_read_a_second_time(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where all that runs is as asked for: one that was not told of would stay."""
    asked_again: list[list[str]] = []
    monkeypatch.setattr(converge, "require_whole", lambda devices: asked_again.append(list(devices)))
    there = running(by_key(peer(1, "10.0.0.2/32")))
    if file == "gone":
        there = dataclasses.replace(there, file=None, config=None)
    else:
        filed = running(by_key(peer(1, "10.0.0.2/32"), peer(2, "10.0.0.3/32")))
        there = dataclasses.replace(there, file=filed.file, config=filed.config)
    monkeypatch.setattr(converge, "have_tools", lambda: False)  # there is no interface to ask
    monkeypatch.setattr(converge, "interface_state", lambda *_asked: there)
    asked = module._Asked(base64.b64encode(CONFIG.encode()).decode(), NOTHING)
    (outcome,) = converge.converge(
        [Desired("wg0", enabled=None)],
        True,
        edit=lambda desired, actual: module._edit(desired, actual, asked),
    )
    assert outcome.error is None
    assert asked_again == [["wg0"]]


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
