"""wg_instance on a node with systemd: the unit, and what a reboot brings back or does not.

The scenario `default` of molecule has the same of the playbooks, for what is usual."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.systemd.ansible_task import run_task
from tests.systemd.node import SystemdNode

MODULE = "wg_instance"
PRESHARED = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
PEERS: list[dict[str, Any]] = [
    {
        "public_key": "4Q84bxy9zjVyV4cBgtWqgpAVQVIHgTYrwwv0QNaIzkA=",
        "allowed_ips": ["10.7.0.2/32", "fd00:7::2/128", "10.50.0.0/24", "fd00:50::/64"],
        "preshared_key": PRESHARED,
    },
    {
        "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "allowed_ips": ["10.7.0.3/32"],
        "persistent_keepalive": 25,
    },
]
INSTANCE: dict[str, Any] = {
    "name": "wg7",
    "listen_port": 51827,
    "addresses": ["10.7.0.1/24", "fd00:7::1/64"],
    "mtu": 1380,
    "fwmark": 77,
    "post_up": ["touch /run/%i-is-up"],
    "pre_down": ["rm -f /run/%i-is-up"],
    "peers": PEERS,
}
PATH = "/etc/wireguard/wg7.conf"


@pytest.fixture
def node(systemd_node: SystemdNode) -> Iterator[SystemdNode]:
    """The session's node, without wg7 before and after."""
    yield systemd_node
    for argv in (
        ["systemctl", "disable", "--now", "wg-quick@wg7"],
        ["systemctl", "reset-failed", "wg-quick@wg7"],
        ["ip", "link", "delete", "dev", "wg7"],
        ["rm", "-f", PATH, "/run/wg7-is-up"],
    ):
        systemd_node.run(argv, check=False)


def running(node: SystemdNode) -> dict[str, Any]:
    """All that the node says of wg7 which a reboot must bring back."""
    links = json.loads(node.run(["ip", "-json", "address", "show"]).stdout)
    link = next((entry for entry in links if entry.get("ifname") == "wg7"), None)
    if link is None:
        return {}
    addresses = [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link"]
    dump = node.run(["wg", "show", "wg7", "dump"]).stdout.splitlines()
    routes = [
        sorted(
            entry["dst"]
            for entry in json.loads(node.run(["ip", flag, "-json", "route", "show", "dev", "wg7"]).stdout)
        )
        for flag in ("-4", "-6")
    ]
    return {
        "dump": sorted(dump),
        "addresses": sorted(addresses),
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "routes": [[route for route in family if not route.startswith("fe80")] for family in routes],
        "hook": node.run(["test", "-e", "/run/wg7-is-up"], check=False).returncode == 0,
    }


def unit(node: SystemdNode) -> tuple[str, str]:
    """Whether the unit is enabled, and whether it is active, in systemd's words."""
    return (
        node.run(["systemctl", "is-enabled", "wg-quick@wg7"], check=False).stdout.strip(),
        node.run(["systemctl", "is-active", "wg-quick@wg7"], check=False).stdout.strip(),
    )


def exists(node: SystemdNode, path: str) -> bool:
    return node.run(["test", "-e", path], check=False).returncode == 0


def test_present_is_enabled_active_and_the_same_after_a_reboot(node: SystemdNode) -> None:
    check = run_task(node, MODULE, check=True, **INSTANCE)
    assert check.changed
    assert running(node) == {}
    assert not exists(node, PATH)

    real = run_task(node, MODULE, **INSTANCE)
    assert real.changed, real
    assert real.diff == check.diff
    assert unit(node) == ("enabled", "active")
    before = running(node)
    assert before["addresses"] == ["10.7.0.1/24", "fd00:7::1/64"]
    assert before["mtu"] == 1380
    assert before["routes"] == [["10.50.0.0/24", "10.7.0.0/24"], ["fd00:50::/64", "fd00:7::/64"]]
    assert before["up"]
    assert before["hook"]
    assert any(PRESHARED in line for line in before["dump"])

    journal = node.run(["journalctl", "--no-pager", "--output=cat"]).stdout
    assert "wg-quick" in journal
    for secret in (PRESHARED, node.run(["wg", "show", "wg7", "private-key"]).stdout.strip()):
        assert secret not in journal

    again = run_task(node, MODULE, **INSTANCE)
    assert not again.changed, again

    node.reboot(power_cut=True)
    assert unit(node) == ("enabled", "active")
    assert running(node) == before
    assert not run_task(node, MODULE, **INSTANCE).changed


def test_a_change_reaches_the_next_boot(node: SystemdNode) -> None:
    run_task(node, MODULE, **INSTANCE)
    changed = run_task(node, MODULE, **{**INSTANCE, "peers": PEERS[:1], "mtu": 1400})
    assert changed.answer["peers_removed"] == [PEERS[1]["public_key"]]
    before = running(node)
    node.reboot()
    assert running(node) == before
    assert before["mtu"] == 1400


@pytest.mark.parametrize("state", ["disconnected", "absent"])
def test_gone_stays_gone_when_its_file_had_vanished(node: SystemdNode, state: str) -> None:
    run_task(node, MODULE, **INSTANCE)
    node.run(["rm", PATH])
    gone = run_task(node, MODULE, name="wg7", state=state)
    assert gone.changed, gone
    assert not gone.failed
    assert running(node) == {}
    assert not exists(node, PATH)
    assert unit(node) == ("disabled", "inactive")
    assert not run_task(node, MODULE, name="wg7", state=state).changed
    node.reboot()
    assert running(node) == {}
    assert unit(node) == ("disabled", "inactive")
    if state == "absent":
        left = node.run(["find", "/etc", "/run", "-name", "*wg7*"]).stdout
        assert left == ""


def test_an_interface_made_by_hand_is_taken_over_without_being_touched(node: SystemdNode) -> None:
    node.run(["wireguard-go", "wg7"], check=False)
    key = node.run(["wg", "genkey"]).stdout
    node.run(["wg", "set", "wg7", "private-key", "/dev/stdin", "listen-port", "51827"], input=key)
    node.run(["wg", "set", "wg7", "peer", PEERS[1]["public_key"], "allowed-ips", "10.7.0.3/32"])
    node.run(["ip", "address", "add", "10.7.0.1/24", "dev", "wg7"])
    node.run(["ip", "link", "set", "dev", "wg7", "up"])
    index = node.read("/sys/class/net/wg7/ifindex")

    taken = run_task(node, MODULE, **{**INSTANCE, "mtu": 1420})
    assert taken.changed, taken
    assert node.read("/sys/class/net/wg7/ifindex") == index
    assert unit(node) == ("enabled", "active")
    assert node.run(["wg", "show", "wg7", "private-key"]).stdout == key
    assert not exists(node, "/run/systemd/system/wg-quick@wg7.service.d")
    assert not run_task(node, MODULE, **{**INSTANCE, "mtu": 1420}).changed
    before = {**running(node), "hook": True}
    node.reboot()
    assert running(node) == before


def test_not_enabled_runs_now_and_not_after_a_reboot(node: SystemdNode) -> None:
    run_task(node, MODULE, **{**INSTANCE, "enabled": False})
    assert unit(node) == ("disabled", "active")
    node.reboot()
    assert running(node) == {}
    assert exists(node, PATH)


def test_an_interface_deleted_under_its_unit_comes_back(node: SystemdNode) -> None:
    run_task(node, MODULE, **INSTANCE)
    before = running(node)
    node.run(["ip", "link", "delete", "dev", "wg7"])
    assert run_task(node, MODULE, **INSTANCE).changed
    assert running(node) == before
    assert unit(node) == ("enabled", "active")


def drift_of(node: SystemdNode, **asked: Any) -> list[tuple[str, Any, Any]]:
    """The issues of interfaces that a look finds."""
    result = run_task(node, "wg_drift", **asked)
    assert not result.failed, result.message
    assert not result.changed
    issues = result.answer["interface_issues"]
    assert {one["interface"] for one in issues} <= {"wg7"}
    return [(one["field"], one["expected"], one["actual"]) for one in issues]


def test_the_unit_is_compared_and_put_right(node: SystemdNode) -> None:
    present: dict[str, Any] = {"interface": "wg7", "peers": PEERS}
    absent: dict[str, Any] = {"interface": "wg7", "state": "absent"}
    unknown: dict[str, Any] = {"interfaces": [{"interface": "wg8", "state": "absent"}], "complete": True}
    run_task(node, MODULE, **INSTANCE)
    assert drift_of(node, **present) == []
    node.run(["systemctl", "disable", "wg-quick@wg7"])
    assert drift_of(node, **present) == [("enabled at boot", True, False)]
    assert run_task(node, MODULE, **INSTANCE).changed
    assert drift_of(node, **present) == []

    # It should be gone, and is taken down by hand; what would bring it back at boot is overlooked.
    assert drift_of(node, **absent) == drift_of(node, **unknown) == [("interface", "absent", "up")]
    node.run(["systemctl", "stop", "wg-quick@wg7"])
    assert (
        drift_of(node, **absent) == drift_of(node, **unknown) == [("interface", "absent", "enabled at boot")]
    )
    node.run(["rm", PATH])
    assert (
        drift_of(node, **absent) == drift_of(node, **unknown) == [("interface", "absent", "enabled at boot")]
    )
    assert run_task(node, MODULE, name="wg7", state="absent").changed
    assert drift_of(node, **absent) == drift_of(node, **unknown) == []


def test_a_start_that_fails_leaves_nothing(node: SystemdNode) -> None:
    failed = run_task(node, MODULE, **{**INSTANCE, "post_up": ["echo no such luck >&2; exit 3"]})
    assert failed.failed
    assert "no such luck" in failed.message
    assert "wg7 is as it was before" in failed.message
    assert running(node) == {}
    assert not exists(node, PATH)
    assert unit(node) == ("disabled", "inactive")


def test_twenty_instances_in_one_call(node: SystemdNode) -> None:
    instances = [
        {
            "name": f"wg{number}",
            "listen_port": 52000 + number,
            "addresses": [f"10.64.{number}.1/24"],
            "peers": [],
        }
        for number in range(100, 120)
    ]
    made = run_task(node, MODULE, instances=instances)
    try:
        assert [entry["changed"] for entry in made.answer["instances"]] == [True] * 20, made.message
        assert not run_task(node, MODULE, instances=instances).changed
    finally:
        gone = run_task(
            node, MODULE, instances=[{"name": entry["name"]} for entry in instances], state="absent"
        )
    assert not gone.failed
    assert node.run(["wg", "show", "interfaces"]).stdout.strip() == ""
