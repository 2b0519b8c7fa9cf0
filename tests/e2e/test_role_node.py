"""The role node over SSH, and what its firewall does to the packets of customers' devices.

node1 runs two instances, wg1 (dev1, dev2) and wg2 (dev3), made by plain wg-quick; dev4 is in none of them: it
is the outside. The other nodes are for what would get in the packets' way.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.node import Node

_PLAYBOOK = """\
- name: Prepare one node
  hosts: all
  gather_facts: false
  roles:
    - vpnfleet.wireguard.node
"""

_FIREWALL_FILE = "/etc/nftables-vpnfleet.conf"
_SYSCTL_FILE = "/etc/sysctl.d/99-vpnfleet.conf"

# The address of a host inside an instance, by IP version; host 1 is the node.
_TUNNELS = {4: "10.99.{instance}.{host}", 6: "fd99::{instance}:{host}"}
_LENGTHS = {4: 24, 6: 112}
_VERSIONS = pytest.mark.parametrize("version", [4, 6])

_OPERATORS_RULES = """\
flush ruleset
table inet operator {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 7777 drop
	}
}
"""

# Says "ready", takes one connection and tells who it came from and the segment size it may send.
_SERVER = """\
import json, socket, sys
server = socket.create_server((sys.argv[1], 7001), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
connection, client = server.accept()
segment = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
connection.sendall(b"hello")
print(json.dumps({"client": client[0], "segment": segment}), flush=True)
"""
_CLIENT = """\
import socket, sys
with socket.create_connection((sys.argv[1], 7001), timeout=5) as connection:
    assert connection.recv(5) == b"hello"
"""


@dataclass(frozen=True)
class Run:
    """How a playbook ended: its exit code, its output, and how many tasks changed something."""

    code: int
    output: str
    changed: int


@dataclass(frozen=True)
class Seen:
    """A device's TCP connection as the outside saw it: the address it came from, its segment size in bytes."""

    client: str
    segment: int


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    state_dir = tmp_path_factory.mktemp("role_node")
    with Lab(name=f"rn{os.getpid()}", nodes=4, devices=4, state_dir=state_dir) as lab:
        (lab.state_dir / "node.yml").write_text(_PLAYBOOK, encoding="utf-8")
        yield lab


@pytest.fixture(scope="module")
def node(fleet: Lab) -> Node:
    """node1, prepared by the role, with two instances and their devices."""
    node, devices, outside = fleet.nodes[0], fleet.devices[:3], fleet.devices[3]
    converge(fleet, node)
    keys = [_key() for _ in range(2)]
    for number, (private, _) in enumerate(keys, start=1):
        lines = ["[Interface]", f"PrivateKey = {private}", f"ListenPort = {51820 + number}"]
        lines += [f"Address = {_tunnel(v, number, 1)}/{_LENGTHS[v]}" for v in (4, 6)]
        node.write(f"/etc/wireguard/wg{number}.conf", "\n".join(lines) + "\n", 0o600)
        node.run(["wg-quick", "up", f"wg{number}"])
    for device, (instance, host) in zip(devices, [(1, 2), (1, 3), (2, 2)], strict=True):
        private, public = _key()
        allowed = ",".join(_tunnel(v, instance, host) for v in (4, 6))
        node.run(["wg", "set", f"wg{instance}", "peer", public, "allowed-ips", allowed])
        device.connect(
            private,
            [f"{_tunnel(v, instance, host)}/{_LENGTHS[v]}" for v in (4, 6)],
            keys[instance - 1][1],
            f"{node.address}:{51820 + instance}",
            ["10.99.0.0/16", "fd99::/64", outside.address, outside.address6],
            keepalive=20,  # the first one tells the node where the device is
        )
        assert device.ping(_tunnel(4, instance, 1), count=1, timeout=10).received
    return node


@pytest.fixture(scope="module")
def healthy(fleet: Lab) -> tuple[Node, dict[str, str]]:
    """node2, prepared by the role, and its state as snapshot() gives it."""
    node = fleet.nodes[1]
    converge(fleet, node)
    return node, snapshot(node)


# -- packets


@_VERSIONS
def test_device_reaches_the_outside_under_the_nodes_address(fleet: Lab, node: Node, version: int) -> None:
    seen = connect_outside(fleet, version)

    assert seen.client == (node.address if version == 4 else node.address6)


@_VERSIONS
@pytest.mark.usefixtures("node")
def test_devices_of_one_instance_reach_each_other(fleet: Lab, version: int) -> None:
    assert reaches(fleet.devices[0], _tunnel(version, 1, 3))


def test_instances_are_kept_apart(fleet: Lab, node: Node) -> None:
    """Without isolation the same packets arrive: it is the rule that stops them, not the lab."""
    targets = [_tunnel(version, 2, 2) for version in (4, 6)]

    converge(fleet, node, node_isolation=False)
    assert [reaches(fleet.devices[0], target) for target in targets] == [True, True]

    converge(fleet, node)
    assert [reaches(fleet.devices[0], target) for target in targets] == [False, False]


def test_new_connections_from_outside_are_dropped(fleet: Lab, node: Node) -> None:
    outside = fleet.devices[3]
    targets = [_tunnel(version, 1, 2) for version in (4, 6)]
    outside.run(["ip", "route", "add", "10.99.0.0/16", "via", node.address])
    outside.run(["ip", "route", "add", "fd99::/64", "via", node.address6])
    try:
        converge(fleet, node, node_inbound=True)
        assert [reaches(outside, target) for target in targets] == [True, True]

        converge(fleet, node)
        assert [reaches(outside, target) for target in targets] == [False, False]
    finally:
        outside.run(["ip", "route", "del", "10.99.0.0/16"])
        outside.run(["ip", "route", "del", "fd99::/64"])


def test_without_masquerade_no_answer_finds_back(fleet: Lab, node: Node) -> None:
    converge(fleet, node, node_masquerade=["ipv4"])
    assert reaches(fleet.devices[0], fleet.devices[3].address)
    assert not reaches(fleet.devices[0], fleet.devices[3].address6)

    converge(fleet, node)
    assert reaches(fleet.devices[0], fleet.devices[3].address6)


def test_segment_size_is_lowered_to_the_tunnels_mtu(fleet: Lab, node: Node) -> None:
    node.run(["ip", "link", "set", "wg1", "mtu", "1280"])
    try:
        converge(fleet, node, node_clamp_mss=False)
        assert connect_outside(fleet, 4).segment > 1280 - 40

        converge(fleet, node)
        assert connect_outside(fleet, 4).segment <= 1280 - 40
    finally:
        node.run(["ip", "link", "set", "wg1", "mtu", "1420"])


def test_no_packet_is_lost_while_the_table_is_replaced(fleet: Lab, node: Node) -> None:
    """By the role, by its own file, and by an operator's ruleset that begins with `flush ruleset`."""
    node.write("/etc/nftables.conf", _OPERATORS_RULES)
    ping = fleet.devices[0].start_ping(fleet.devices[3].address, interval=0.02)
    try:
        assert ping.wait_for_reply()
        assert converge(fleet, node, node_inbound=True).changed
        assert converge(fleet, node).changed
        wanted = ruleset(node)
        for _ in range(5):
            node.run(["nft", "-f", _FIREWALL_FILE])
            node.run(["nft", "-f", "/etc/nftables.conf"])
    finally:
        result = ping.stop()

    assert result.lost == 0, result
    assert "table inet operator" in ruleset(node)
    assert node.run(["nft", "-s", "list", "table", "inet", "vpnfleet"]).stdout in wanted
    assert not reaches(fleet.devices[0], _tunnel(4, 2, 2))
    assert converge(fleet, node).changed == 0


def test_an_instance_adds_no_rule_and_leaves_none(fleet: Lab, node: Node) -> None:
    before = ruleset(node)
    config = f"[Interface]\nPrivateKey = {_key()[0]}\nAddress = 10.99.9.1/24\n"
    node.write("/etc/wireguard/wg9.conf", config, 0o600)

    for action in ("up", "down", "up", "down"):
        node.run(["wg-quick", action, "wg9"])
        assert ruleset(node) == before
    node.run(["rm", "/etc/wireguard/wg9.conf"])
    assert converge(fleet, node).changed == 0


def test_absent_is_refused_while_instances_run(fleet: Lab, node: Node) -> None:
    before = snapshot(node)

    refused = play(fleet, node, node_state="absent")

    assert refused.code != 0
    assert "Instances still run on the node: wg1 wg2." in _flat(refused.output)
    assert snapshot(node) == before


# -- converging


def test_second_run_changes_nothing(fleet: Lab, healthy: tuple[Node, dict[str, str]]) -> None:
    node, state = healthy

    assert converge(fleet, node).changed == 0
    assert converge(fleet, node, check=True).changed == 0
    assert snapshot(node) == state


@pytest.mark.parametrize(
    "damage",
    [
        ["nft flush chain inet vpnfleet forward"],
        ["nft insert rule inet vpnfleet forward accept"],
        ["nft delete table inet vpnfleet"],
        ["sysctl -qw net.ipv4.ip_forward=0"],
        ["sysctl -qw net.ipv6.conf.all.forwarding=0"],
        [f"sed -i s/drop/accept/ {_FIREWALL_FILE}", "sed -i /vpnfleet/d /etc/nftables.conf"],
        [f"chmod 0666 {_FIREWALL_FILE}", f"rm {_SYSCTL_FILE}", "chmod 0755 /etc/wireguard"],
    ],
    ids="; ".join,
)
def test_damage_is_shown_and_repaired(
    fleet: Lab, healthy: tuple[Node, dict[str, str]], damage: list[str]
) -> None:
    node, state = healthy
    for command in damage:
        node.run(command.split())
    damaged = snapshot(node)
    assert damaged != state

    foreseen = converge(fleet, node, check=True)
    assert snapshot(node) == damaged
    repaired = converge(fleet, node)

    assert repaired.changed == foreseen.changed >= 1
    assert snapshot(node) == state


def test_from_nothing_and_back(fleet: Lab) -> None:
    """Check mode changes nothing and foresees what is done; absent leaves only the operator's own."""
    node = fleet.nodes[2]
    node.write("/etc/nftables.conf", _OPERATORS_RULES)
    node.run(["nft", "-f", "/etc/nftables.conf"])
    fresh = snapshot(node)

    foreseen = converge(fleet, node, check=True)
    assert snapshot(node) == fresh
    assert "+table inet vpnfleet {" in foreseen.output
    done = converge(fleet, node)
    assert done.changed == foreseen.changed
    prepared = snapshot(node)
    assert fresh["ruleset"] in prepared["ruleset"]
    assert converge(fleet, node).changed == 0

    converge(fleet, node, node_firewall=False)
    assert ruleset(node) == fresh["ruleset"]
    assert node.read("/etc/nftables.conf") == _OPERATORS_RULES
    assert snapshot(node)["forwarding"] == prepared["forwarding"]
    assert converge(fleet, node, node_firewall=False).changed == 0
    converge(fleet, node)
    assert snapshot(node) == prepared

    foreseen = converge(fleet, node, check=True, node_state="absent")
    assert snapshot(node) == prepared
    assert converge(fleet, node, node_state="absent").changed == foreseen.changed
    # What the kernel runs with stays until the next boot.
    assert snapshot(node) == {**fresh, "forwarding": prepared["forwarding"]}
    assert converge(fleet, node, node_state="absent").changed == 0


def test_default_route_by_router_advertisement_is_kept(fleet: Lab) -> None:
    node = fleet.nodes[3]
    node.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.eth0.accept_ra=1"])
    route = ["default", "via", fleet.addresses.gateway6, "dev", "eth0", "proto", "ra"]
    node.run(["ip", "-6", "route", "replace", *route, "metric", "100"])

    converge(fleet, node)

    assert node.read("/proc/sys/net/ipv6/conf/eth0/accept_ra") == "2\n"
    # The router may be away when the node is looked at again.
    node.run(["ip", "-6", "route", "del", *route])
    assert converge(fleet, node).changed == 0


# -- what cannot be


def test_missing_programs_are_named_and_nothing_is_changed(fleet: Lab) -> None:
    """The lab's nodes have a disk of their own: a program removed there is removed nowhere else."""
    node = fleet.nodes[3]
    converge(fleet, node, node_state="absent")
    node.run(["rm", "/usr/bin/wg", "/usr/sbin/nft", "/usr/bin/wireguard-go"])
    before = snapshot(node)

    foreseen = converge(fleet, node, check=True)
    unmanaged = play(fleet, node, node_packages_manage=False)
    no_userspace = play(fleet, node, node_userspace="never")

    assert "Would install wireguard-tools, nftables, wireguard-go" in _flat(foreseen.output)
    assert unmanaged.code != 0
    assert "The node has no wg, nft, wireguard-go, and node_packages_manage is false" in _flat(
        unmanaged.output
    )
    assert no_userspace.code != 0
    assert 'kernel has no WireGuard, and node_userspace is "never"' in _flat(no_userspace.output)
    assert snapshot(node) == before


@pytest.mark.parametrize(
    "pattern", ["", "*", "w*g", 'wg" accept; drop "', "wg\n", "a234567890123456"], ids=repr
)
def test_odd_patterns_are_refused(fleet: Lab, pattern: str) -> None:
    refused = play(fleet, fleet.nodes[2], node_interface_pattern=pattern)

    assert refused.code != 0
    assert "node_interface_pattern must be the name of an interface" in _flat(refused.output)


# -- how it is done


def play(lab: Lab, node: Node, *, check: bool = False, **variables: object) -> Run:
    """Run the role on one node, with these variables."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "--diff", "--limit", node.name]
    command += ["--extra-vars", json.dumps(variables), *(["--check"] if check else [])]
    command.append(str(lab.state_dir / "node.yml"))
    done = subprocess.run(
        command, env=lab.ansible_env(), cwd=lab.state_dir, capture_output=True, text=True, timeout=180
    )
    output = done.stdout + done.stderr
    recap = re.search(rf"^{node.name} +: ok=\d+ +changed=(\d+) ", done.stdout, re.MULTILINE)
    assert recap is not None, output
    return Run(done.returncode, output, int(recap[1]))


def converge(lab: Lab, node: Node, *, check: bool = False, **variables: object) -> Run:
    """The same, where it has to succeed."""
    run = play(lab, node, check=check, **variables)
    assert run.code == 0, run.output
    return run


def snapshot(node: Node) -> dict[str, str]:
    """What the role may change on a node: all of /etc by content, mode and owner, firewall, forwarding."""
    contents = node.run(["find", "/etc", "-type", "f", "-exec", "sha256sum", "{}", "+"]).stdout
    entries = node.run(["find", "/etc", "-printf", "%p %y %m %u:%g %l\n"]).stdout
    switches = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    return {
        "etc": "\n".join(sorted([*contents.splitlines(), *entries.splitlines()])),
        "ruleset": ruleset(node),
        "forwarding": node.run(["sysctl", *switches]).stdout,
    }


def ruleset(node: Node) -> str:
    """The whole running firewall, without counters; empty where there is no program that could show it."""
    return node.run(["nft", "-s", "list", "ruleset"], check=False).stdout if _has_nft(node) else ""


def reaches(device: Device, target: str) -> bool:
    """Whether any of three packets is answered."""
    return device.ping(target, count=3, timeout=1).received > 0


def connect_outside(lab: Lab, version: int) -> Seen:
    """Connect dev1 through its tunnel to dev4 by TCP, and tell what dev4 saw."""
    device, outside = lab.devices[0], lab.devices[3]
    address = outside.address if version == 4 else outside.address6
    server = subprocess.Popen(
        [*outside.enter(processes=False), "python3", "-c", _SERVER, address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        device.run(["python3", "-c", _CLIENT, address])
        return Seen(**json.loads(server.stdout.readline()))
    finally:
        server.kill()
        server.communicate()


def _has_nft(node: Node) -> bool:
    return node.run(["test", "-x", "/usr/sbin/nft"], check=False).returncode == 0


def _tunnel(version: int, instance: int, host: int) -> str:
    return _TUNNELS[version].format(instance=instance, host=host)


def _key() -> tuple[str, str]:
    """A private key and its public one."""
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    public = subprocess.run(
        ["wg", "pubkey"], check=True, capture_output=True, text=True, input=private
    ).stdout
    return private.strip(), public.strip()


def _flat(output: str) -> str:
    """Ansible's output without the line breaks and the quoting that depend on a text's length."""
    return re.sub(r"\s+", " ", output.replace('\\"', '"'))
