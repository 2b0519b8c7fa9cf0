"""wg_info on a real node: what it tells of interfaces with and without files, peers and sessions, and no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import play, script, task
from tests.e2e.node_state import READ_STATE, parse_state
from tests.e2e.wg_node import BYSTANDER, BYSTANDER_PORT, Bystander, empty
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key, public_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander

INSTANCE: dict[str, Any] = {
    "name": "wg7",
    "private_key": private_key("wg7"),
    "listen_port": 20007,
    "addresses": ["10.7.0.1/24", "fd00:7::1/64"],
    "mtu": 1400,
    "fwmark": 9,
    "peers": [
        {
            "public_key": peer_key("a"),
            "allowed_ips": ["10.7.0.2/32", "10.71.0.0/24"],
            "preshared_key": preshared_key("a"),
            "persistent_keepalive": 25,
            "endpoint": "192.0.2.3:99",
        },
        {"public_key": peer_key("b"), "allowed_ips": []},
    ],
}

EDIT = f"""
sed -i 's/^ListenPort.*/ListenPort = 7/' /etc/wireguard/wg7.conf
printf '[Peer]\\nPublicKey = {peer_key("c")}\\n' >>/etc/wireguard/wg7.conf
"""


@pytest.fixture(scope="module")
def answers(lab: Lab, node: Node, bystander: Bystander) -> Iterator[dict[str, dict[str, Any]]]:
    """What wg_info says of two interfaces, one of them with a session, by names, with options, and in check mode."""
    empty(node)
    node.write("/run/read-state", READ_STATE)
    asked: dict[str, dict[str, Any]] = {
        "all": {},
        "one": {"interfaces": ["wg7", "wg99"]},
        "none": {"interfaces": []},
        "counts": {"peers": False},
    }
    tasks = [task("given", "wg_instance", INSTANCE), script("before", "sh /run/read-state")]
    tasks += [task(name, "wg_info", parameters) for name, parameters in asked.items()]
    tasks += [
        task("check", "wg_info", {}, check=True),
        script("after", "sh /run/read-state"),
        script("edit", EDIT),
        task("edited", "wg_info", {"interfaces": ["wg7"]}),
        script("break", "echo nonsense >/etc/wireguard/wg7.conf"),
        task("broken", "wg_info", {"interfaces": ["wg7"]}),
        script("delete", "rm /etc/wireguard/wg7.conf; ip link set wg7 down"),
        task("deleted", "wg_info", {"interfaces": ["wg7"]}),
    ]
    session = bystander.state()
    run = play(lab, node, tasks)
    assert parse_state(run["after"].stdout) == parse_state(run["before"].stdout)
    for name in (*asked, "check", "edited", "broken", "deleted"):
        assert not run[name].failed, run[name].message
        assert not run[name].changed
    bystander.check(session)
    yield {name: result.answer for name, result in run.results.items()}
    empty(node)


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in answer["interfaces"]}


def test_everything_that_runs(answers: dict[str, dict[str, Any]]) -> None:
    found = by_name(answers["all"])
    assert found.keys() == {"wg7", BYSTANDER}
    # The kernel adds a link-local address of its own accord.
    found["wg7"]["addresses"] = [text for text in found["wg7"]["addresses"] if not text.startswith("fe80:")]
    assert found["wg7"] == {
        "name": "wg7",
        "public_key": public_key("wg7"),
        "listen_port": 20007,
        "fwmark": 9,
        "up": True,
        "mtu": 1400,
        "addresses": ["10.7.0.1/24", "fd00:7::1/64"],
        "routes": [{"network": "10.71.0.0/24", "table": "main"}],
        "config_file": "/etc/wireguard/wg7.conf",
        "file_difference": "",
        "enabled": None,
        "active": None,
        "peer_count": 2,
        "truncated": False,
        "peers": sorted(
            [
                {
                    "public_key": peer_key("a"),
                    "allowed_ips": ["10.7.0.2/32", "10.71.0.0/24"],
                    "endpoint": "192.0.2.3:99",
                    "persistent_keepalive": 25,
                    "has_preshared_key": True,
                    "latest_handshake": 0,
                    "seconds_since_handshake": None,
                    "received": 0,
                    "sent": found["wg7"]["peers"][0 if peer_key("a") < peer_key("b") else 1]["sent"],
                },
                {
                    "public_key": peer_key("b"),
                    "allowed_ips": [],
                    "endpoint": None,
                    "persistent_keepalive": 0,
                    "has_preshared_key": False,
                    "latest_handshake": 0,
                    "seconds_since_handshake": None,
                    "received": 0,
                    "sent": 0,
                },
            ],
            key=lambda peer: str(peer["public_key"]),
        ),
    }
    assert answers["all"]["unreadable"] == {}
    assert answers["all"]["userspace"] is True
    assert answers["all"]["wireguard_tools"].count(".") == 2


def test_a_session(answers: dict[str, dict[str, Any]], bystander: Bystander) -> None:
    found = by_name(answers["all"])[BYSTANDER]
    assert found["listen_port"] == BYSTANDER_PORT
    (peer,) = found["peers"]
    assert peer["endpoint"].startswith(f"{bystander.device.address}:")
    assert peer["latest_handshake"] > 1_700_000_000
    assert 0 <= peer["seconds_since_handshake"] < 3600
    assert peer["received"] > 0
    assert peer["sent"] > 0


def test_what_was_asked_for_and_no_more(answers: dict[str, dict[str, Any]]) -> None:
    assert by_name(answers["one"]).keys() == {"wg7"}
    assert answers["none"]["interfaces"] == []
    counts = by_name(answers["counts"])
    assert counts["wg7"]["peer_count"] == 2
    assert "peers" not in counts["wg7"]
    assert by_name(answers["check"]).keys() == {"wg7", BYSTANDER}


@pytest.mark.parametrize(
    ("state", "difference"),
    [("edited", "1 peer only in the file, listen port 7"), ("broken", "broken"), ("deleted", "")],
)
def test_the_file_is_compared(answers: dict[str, dict[str, Any]], state: str, difference: str) -> None:
    found = by_name(answers[state])["wg7"]
    assert found["file_difference"] == difference
    assert found["config_file"] == (None if state == "deleted" else "/etc/wireguard/wg7.conf")
    assert found["up"] is (state != "deleted")


def test_no_secret_is_told(answers: dict[str, dict[str, Any]]) -> None:
    told = json.dumps(answers)
    for secret in (private_key("wg7"), preshared_key("a"), private_key("bystander")):
        assert secret in told.split("@ dump")[1], "the state that the test itself read has it"
        assert all(
            secret not in json.dumps(answer) for name, answer in answers.items() if "interfaces" in answer
        )
