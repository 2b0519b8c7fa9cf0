from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import converge
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import peers as work
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    CommandFailed,
    InvalidInput,
    Refused,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Peer
from tests.unit.plugins.module_utils import simulated_interfaces
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
    running,
)
from tests.unit.plugins.module_utils.simulated_interfaces import Fleet

fleet = simulated_interfaces.fleet


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "public_key"),
        ({"public_key": "x"}, "public_key"),
        ({"public_key": key(1), "state": "gone"}, "state"),
        ({"public_key": key(1), "allowed_ips": ["10.0.0.1/24"]}, "allowed_ips[0]"),
        ({"public_key": key(1), "preshared_key": "hunter2"}, "preshared_key"),
        ({"public_key": key(1), "persistent_keepalive": -1}, "persistent_keepalive"),
        ({"public_key": key(1), "endpoint": "x"}, "endpoint"),
        ({"public_key": key(1), "peers": []}, "public_key"),
        ({"peers": {}}, "peers"),
        ({"peers": [5]}, "peers[0]"),
        (
            {"peers": [{"public_key": key(1)}, {"public_key": key(1), "state": "absent"}]},
            "peers[1].public_key",
        ),
        ({"peers": [{"public_key": key(1), "state": "up"}]}, "peers[0].state"),
        ({"peers": [{"public_key": key(1), "psk": 5}]}, "peers[0]"),
        ({"peers": [{"public_key": key(1), "psk": 5, "state": "absent"}]}, "peers[0].psk"),
        ({"peers": [{"public_key": key(1), "x" * 1_000_000: 5, 5: 5, "state": "absent"}]}, "peers[0].5"),
        ({"peers": [{"public_key": key(1), "x" * 1_000_000: 5, "state": "absent"}]}, "peers[0]." + "x" * 40),
        ({"peers": [{"public_key": key(1), "endpoint": "x"}]}, "peers[0].endpoint"),
    ],
)
def test_parameters_are_checked_and_named(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        work._asked(params)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300
    assert "hunter2" not in str(caught.value)


def edit(params: dict[str, Any], actual: InterfaceState) -> Desired | None:
    put, gone = work._asked(params)
    return work._edit(Desired("wg0"), actual, put, gone)


def edited(params: dict[str, Any], actual: InterfaceState) -> Desired:
    wanted = edit(params, actual)
    assert wanted is not None
    return wanted


LIVE = by_key(
    peer(1, "10.0.0.1/32", preshared_key=preshared_key(1), persistent_keepalive=25, endpoint="192.0.2.9:9"),
    peer(2, "10.0.0.2/32"),
)


def test_what_is_not_given_stays_as_it_is_and_others_are_kept() -> None:
    wanted = edited({"public_key": key(1), "allowed_ips": ["10.0.0.7"]}, running(LIVE))
    assert wanted.peers == {
        key(1): Peer(key(1), ("10.0.0.7/32",), preshared_key(1), 25, "192.0.2.9:9"),
        key(2): LIVE[key(2)],
    }
    assert wanted.enabled is None


def test_a_learned_endpoint_is_not_asked_for() -> None:
    there = running(LIVE)
    assert there.config is not None
    filed = {name: one._replace(endpoint=None) for name, one in LIVE.items()}
    there = dataclasses.replace(there, config=dataclasses.replace(there.config, peers=filed))
    assert edited({"public_key": key(2), "state": "absent"}, there).peers == {key(1): filed[key(1)]}


def test_a_field_may_be_taken_away() -> None:
    params = {"public_key": key(1), "preshared_key": "", "persistent_keepalive": 0, "allowed_ips": []}
    assert edited(params, running(LIVE)).peers[key(1)][:4] == (key(1), (), None, 0)  # type: ignore[index]


def test_an_overlap_with_a_peer_that_is_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="allowed_ips of two peers overlap"):
        edited({"public_key": key(3), "allowed_ips": ["10.0.0.0/24"]}, running(LIVE))


def test_a_network_may_move_in_one_call() -> None:
    peers = [{"public_key": key(1), "state": "absent"}, {"public_key": key(3), "allowed_ips": ["10.0.0.1"]}]
    wanted = edited({"peers": peers}, running(LIVE))
    assert wanted.peers == {key(2): LIVE[key(2)], key(3): peer(3, "10.0.0.1/32")}


def test_naming_a_peer_is_leave_to_remove_it() -> None:
    many = by_key(*(peer(number) for number in range(50)))
    wanted = edited({"peers": [{"public_key": name, "state": "absent"} for name in many]}, running(many))
    assert wanted.peers == {}
    assert (wanted.max_removals or 0) >= 50


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (InterfaceState(), "^there is no such interface; bring it up with wg_instance first$"),
        (dataclasses.replace(running(), device=None, link=None), "^only its config file is there"),
        (InterfaceState(file="x"), "^only its config file is there"),
    ],
)
def test_an_interface_that_is_down_is_refused(there: InterfaceState, message: str) -> None:
    with pytest.raises(Refused, match=message):
        edited({"public_key": key(1)}, there)


def test_a_peer_of_no_interface_is_gone_already() -> None:
    assert edit({"public_key": key(1), "state": "absent"}, InterfaceState()) is None


def test_a_peer_is_not_removed_from_a_file_alone_let_alone_the_file_with_it() -> None:
    with pytest.raises(Refused, match="only its config file is there"):
        edited({"public_key": key(1), "state": "absent"}, InterfaceState(file="[Interface\n"))


# ---- the answer as a whole


def peers_of(fleet: Fleet) -> dict[str, Peer]:
    device = fleet.nodes["wg0"].now.device
    assert device is not None
    return device.peers


BATCH = [
    {"public_key": key(1), "persistent_keepalive": 0, "preshared_key": preshared_key(7)},
    {"public_key": key(2), "state": "absent"},
    {"public_key": key(3), "allowed_ips": ["10.0.0.3"], "preshared_key": preshared_key(3)},
]


@pytest.mark.parametrize("check_mode", [True, False])
def test_the_answer_names_each_peer_and_no_secret(fleet: Fleet, check_mode: bool) -> None:
    fleet.has("wg0", running(LIVE))
    answer = work.run({"interface": "wg0", "peers": BATCH}, check_mode, True)
    (diff,) = answer.pop("diff")
    assert answer == {
        "interface": "wg0",
        "changed": True,
        "public_key": public_key_of(private_key(1)),
        "listen_port": 51820,
        "peers_added": [key(3)],
        "peers_added_count": 1,
        "peers_updated": [key(1)],
        "peers_updated_count": 1,
        "peers_removed": [key(2)],
        "peers_removed_count": 1,
        "steps": ["rewrite the config file", "add 1 peer and update 1 peer and remove 1 peer"],
    }
    assert f"peer: {key(2)} allowed_ips 10.0.0.2/32" in diff["before"]
    assert f"peer: {key(3)} allowed_ips 10.0.0.3/32" in diff["after"]
    text = json.dumps(diff)
    assert not any(secret[:32] in text for secret in (private_key(1), *map(preshared_key, (1, 3, 7))))
    if check_mode:
        assert fleet.applied == []
        assert peers_of(fleet) == LIVE
        return
    assert peers_of(fleet) == {
        key(1): LIVE[key(1)]._replace(preshared_key=preshared_key(7), persistent_keepalive=0),
        key(3): peer(3, "10.0.0.3/32", preshared_key=preshared_key(3)),
    }
    again = work.run({"interface": "wg0", "peers": BATCH}, False, True)
    assert (again["changed"], again["steps"], again["diff"]) == (False, [], [])


def test_without_diff_mode_there_is_none(fleet: Fleet) -> None:
    fleet.has("wg0", running(LIVE))
    answer = work.run({"interface": "wg0", "public_key": key(2), "state": "absent"}, False, False)
    assert (answer["peers_removed"], "diff" in answer) == ([key(2)], False)
    assert peers_of(fleet).keys() == {key(1)}


def test_a_failure_raises_without_the_secrets_in_its_words(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever program repeats them."""
    fleet.has("wg0", running(LIVE))
    secrets = (private_key(1), preshared_key(1), preshared_key(3))

    def talkative(*_arguments: object) -> None:
        raise CommandFailed("wg", 1, f"cannot parse {' '.join(secrets)}, nor {key(1)}")

    monkeypatch.setattr(converge, "apply_step", talkative)
    with pytest.raises(Refused) as caught:
        work.run({"interface": "wg0", "peers": BATCH}, False, True)
    message = str(caught.value)
    assert message.startswith(
        f"wg0: wg failed with exit code 1: cannot parse (secret) (secret) (secret), nor {key(1)} (undone"
    )
    assert peers_of(fleet) == LIVE


def test_secrets_that_were_given_are_hidden_even_where_nothing_could_be_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> InterfaceState:
        raise CommandFailed("wg", 1, f"odd: {preshared_key(3)}")

    monkeypatch.setattr(converge, "interface_state", broken)
    fleet.has("wg0", running(LIVE))
    with pytest.raises(Refused, match=r"^wg0: wg failed with exit code 1: odd: \(secret\)$"):
        work.run({"interface": "wg0", "peers": BATCH}, False, True)


def test_what_is_not_there_is_refused_and_none_of_it_is_no_change(fleet: Fleet) -> None:
    fleet.has("wg0", InterfaceState())
    with pytest.raises(
        Refused, match=r"^wg0: there is no such interface; bring it up with wg_instance first$"
    ):
        work.run({"interface": "wg0", "public_key": key(1)}, False, False)
    answer = work.run({"interface": "wg0", "public_key": key(1), "state": "absent"}, False, False)
    assert (answer["changed"], answer["public_key"], answer["peers_removed"]) == (False, None, [])
    assert fleet.applied == []


def test_the_interface_is_named_first(fleet: Fleet) -> None:
    for params in ({"public_key": key(1)}, {"interface": "../wg0", "public_key": key(1)}):
        with pytest.raises(InvalidInput) as caught:
            work.run(params, False, False)
        assert caught.value.field == "interface"
    assert fleet.nodes == {}
