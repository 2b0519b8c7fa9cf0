"""playbooks/site.yml on a node with systemd: the whole server, and what a reboot brings back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fleet import ROOT
from tests.systemd.node import NodeFactory, SystemdNode

VARIABLES = {"wireguard_instances": [{"name": "wg8", "listen_port": 51828, "addresses": ["10.8.0.1/24"]}]}


@pytest.fixture
def node(systemd_nodes: NodeFactory) -> Iterator[SystemdNode]:
    """A node of this test's own: it changes the server, not only an interface."""
    node = systemd_nodes("site")
    yield node
    node.remove()


def site(node: SystemdNode, folder: Path) -> int:
    """Run the playbook; returns how many tasks changed something. The test fails when the playbook does."""
    variables = folder / "variables.json"
    variables.write_text(json.dumps(VARIABLES), encoding="utf-8")
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(node.inventory), "-e", f"@{variables}"]
    result = subprocess.run(
        [*argv, str(ROOT / "playbooks" / "site.yml")],
        env=node.ansible_env(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    recap = re.search(r"changed=(\d+)", result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert recap is not None
    return int(recap.group(1))


def server(node: SystemdNode) -> dict[str, str]:
    """What the role node makes of a server, as it runs."""
    return {
        "firewall": node.run(["nft", "-s", "list", "table", "inet", "vpnfleet"]).stdout,
        "forwarding": node.read("/proc/sys/net/ipv4/ip_forward"),
        "key": node.run(["wg", "show", "wg8", "private-key"]).stdout,
        "unit": node.run(["systemctl", "is-enabled", "wg-quick@wg8", "vpnfleet-nftables"]).stdout,
    }


def test_a_server_and_its_instances_come_back_after_a_reboot(node: SystemdNode, tmp_path: Path) -> None:
    assert site(node, tmp_path) > 0
    assert site(node, tmp_path) == 0
    before = server(node)
    assert before["forwarding"] == "1\n"
    assert before["unit"] == "enabled\nenabled\n"
    assert "masquerade" in before["firewall"]

    node.reboot()
    assert server(node) == before
    assert site(node, tmp_path) == 0
