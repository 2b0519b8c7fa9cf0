"""An interface of the same name that somebody else has made: by its public key, wg_instance knows it from ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import Result, play, task
from tests.e2e.node_state import NodeState, read_state
from tests.e2e.wg_node import BYSTANDER, Bystander, empty
from tests.e2e.wireguard_keys import peer_key, private_key, public_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander

BY_HAND, FILE_ALONE, OURS = "wg7", "wg8", "wg9"
FOREIGN = [BYSTANDER, BY_HAND, FILE_ALONE]
STATES = ("present", "disconnected", "absent")

_MAKE = f"""
umask 077
echo {private_key("by hand")} >/run/key
wireguard-go {BY_HAND} >/dev/null 2>&1 </dev/null
wg set {BY_HAND} private-key /run/key listen-port 20007 peer {peer_key("theirs")} allowed-ips 10.7.0.2/32
rm /run/key
ip address add 10.7.0.1/24 dev {BY_HAND}
ip link set {BY_HAND} up
printf '[Interface]\\nPrivateKey = %s\\nListenPort = 20008\\n' {private_key("file")} >/etc/wireguard/{FILE_ALONE}.conf
"""


@pytest.fixture(autouse=True)
def others(node: Node, bystander: Bystander) -> Iterator[None]:
    """What is there already: with a device that is connected, by hand without a file, and a file alone."""
    empty(node)
    node.run(["sh", "-euc", _MAKE])
    session = bystander.state()
    yield
    bystander.check(session)
    empty(node)


def asked(name: str, number: int, state: str) -> dict[str, Any]:
    """An instance of ours, with the key that it has in our books."""
    ours: dict[str, Any] = {"name": name, "state": state, "public_key": public_key(f"ours {number}")}
    if state == "present":
        ours |= {
            "private_key": private_key(f"ours {number}"),
            "listen_port": 20100 + number,
            "addresses": [f"10.10{number}.0.1/24"],
            "peers": [{"public_key": peer_key("ours"), "allowed_ips": [f"10.10{number}.0.2/32"]}],
            "max_removals": 1000,
        }
    return ours


def batch(state: str) -> dict[str, Any]:
    return {"instances": [asked(name, number, state) for number, name in enumerate([*FOREIGN, OURS])]}


def theirs(state: NodeState) -> dict[str, Any]:
    return {name: state.of(name) for name in FOREIGN}


def warnings(result: Result) -> str:
    return str(result.answer.get("warnings", ""))


def test_it_is_left_as_it_is(lab: Lab, node: Node) -> None:
    before = read_state(node)
    tasks = [
        task(f"{state}{', foreseen' if check else ''}", "wg_instance", batch(state), check)
        for state in STATES
        for check in (True, False)
    ]
    run = play(lab, node, tasks)
    assert theirs(read_state(node)) == theirs(before)
    assert OURS not in read_state(node).interfaces
    for state in STATES:
        foreseen, real = run[f"{state}, foreseen"], run[state]
        answers = {entry["name"]: entry for entry in real.answer["instances"]}
        for name in FOREIGN:
            assert answers[name]["changed"] is False
            assert answers[name]["steps"] == []
            says = f"{name} has another key than the one given and is left alone"
            if state == "present":
                assert answers[name]["error"].startswith(
                    f"{name} is there already with another key; it belongs to"
                )
                assert says not in warnings(real)
            else:
                assert "error" not in answers[name]
                assert says in warnings(real)
        assert real.failed is (state == "present")
        assert answers[OURS]["changed"] is (state != "absent")  # disconnected has taken it down before
        assert (foreseen.message, foreseen.failed) == (real.message, real.failed)
        assert warnings(foreseen) == warnings(real)
        assert [diff["before_header"] for diff in real.diff] == ([OURS] if state != "absent" else [])
        assert foreseen.diff == real.diff


def test_a_single_instance_has_the_same(lab: Lab, node: Node) -> None:
    before = read_state(node)
    run = play(lab, node, [task(state, "wg_instance", asked(BY_HAND, 1, state)) for state in STATES])
    assert run["present"].failed
    assert "it belongs to somebody else" in run["present"].message
    for state in STATES[1:]:
        assert (run[state].failed, run[state].changed, run[state].diff) == (False, False, [])
        assert f"{BY_HAND} has another key" in warnings(run[state])
    assert theirs(read_state(node)) == theirs(before)


def test_what_has_the_key_that_was_named_is_served(lab: Lab, node: Node) -> None:
    """Also where a run of ours was killed half-way: the file is there, and the interface has no key yet."""
    half_made = f"rm /etc/wireguard/{FILE_ALONE}.conf; wireguard-go {FILE_ALONE} >/dev/null 2>&1 </dev/null"
    node.run(["sh", "-euc", half_made])
    mine = {"name": BY_HAND, "public_key": public_key("by hand")}
    run = play(
        lab,
        node,
        [
            task("half-made", "wg_instance", asked(FILE_ALONE, 2, "present")),
            task("mine", "wg_instance", {**mine, "mtu": 1300}),
            task("mine again", "wg_instance", {**mine, "mtu": 1300}),
            task("gone", "wg_instance", {**mine, "state": "absent"}),
            task("not a key", "wg_instance", {**mine, "public_key": "no key"}),
            task(
                "not its key",
                "wg_instance",
                {**asked(OURS, 3, "present"), "public_key": public_key("by hand")},
            ),
        ],
    )
    assert [run[name].changed for name in ("half-made", "mine", "mine again", "gone")] == [
        True,
        True,
        False,
        True,
    ]
    assert run["half-made"].answer["public_key"] == public_key("ours 2")
    assert not any(warnings(result) for result in run.results.values())
    assert run["not a key"].message.startswith("public_key: is not a WireGuard key")
    assert run["not its key"].message.endswith("public_key: is not the public key of private_key")
    state = read_state(node)
    assert sorted(state.interfaces) == sorted([BYSTANDER, FILE_ALONE])
    assert state.of(BY_HAND) == (None, None, None)
