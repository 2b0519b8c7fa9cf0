"""The test nodes are what they claim to be: systemd, SSH with checked host keys, wg-quick units, reboots."""

from __future__ import annotations

import pytest

from tests.systemd.command import CommandFailed, execute
from tests.systemd.node import NodeFactory, SystemdNode

pytestmark = pytest.mark.usefixtures("systemd_node")


def ansible_ping(node: SystemdNode) -> str:
    argv = ["ansible", "-i", str(node.inventory), "all", "-m", "ansible.builtin.ping"]
    return execute(argv, env=node.ansible_env()).stdout


def test_systemd_runs_as_the_first_process(systemd_node: SystemdNode) -> None:
    assert systemd_node.read("/proc/1/comm") == "systemd\n"
    state = systemd_node.run(["systemctl", "is-system-running"], check=False).stdout.strip()
    assert state in {"running", "degraded"}


def test_no_unit_has_failed(systemd_node: SystemdNode) -> None:
    assert systemd_node.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_run_gives_input_output_and_return_code(systemd_node: SystemdNode) -> None:
    assert systemd_node.run(["cat"], input="a\nb").stdout == "a\nb"
    assert systemd_node.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(CommandFailed, match="broken"):
        systemd_node.run(["sh", "-c", "echo broken >&2; false"])


def test_write_sets_text_and_mode(systemd_node: SystemdNode) -> None:
    systemd_node.write("/etc/made/by-test.conf", "ä\n", mode=0o600)
    assert systemd_node.read("/etc/made/by-test.conf") == "ä\n"
    assert systemd_node.run(["stat", "-c", "%a %U", "/etc/made/by-test.conf"]).stdout == "600 root\n"


def test_ssh_reaches_this_node(systemd_node: SystemdNode) -> None:
    assert systemd_node.ssh(["hostname"]).stdout.strip() == systemd_node.name


def test_ssh_refuses_another_host_key(systemd_node: SystemdNode) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    systemd_node.run(["cp", "-p", key, "/run/kept"])
    systemd_node.run(["sh", "-c", f"rm {key} && ssh-keygen -q -t ed25519 -N '' -f {key}"])
    systemd_node.run(["systemctl", "restart", "ssh"])
    try:
        with pytest.raises(CommandFailed, match="Host key verification failed"):
            systemd_node.ssh(["true"])
    finally:
        systemd_node.run(["mv", "/run/kept", key])
        systemd_node.run(["systemctl", "restart", "ssh"])
    systemd_node.ssh(["true"])


def test_ansible_pings_the_node(systemd_node: SystemdNode) -> None:
    assert "ping: pong" in ansible_ping(systemd_node)


def test_node_answers_on_both_families(systemd_node: SystemdNode) -> None:
    for address in (systemd_node.address, systemd_node.address6):
        execute(["ping", "-c", "1", "-W", "2", address])


def test_wg_quick_unit_comes_back_after_reboot(systemd_node: SystemdNode) -> None:
    private_key = systemd_node.run(["wg", "genkey"]).stdout.strip()
    public_key = systemd_node.run(["wg", "pubkey"], input=private_key).stdout
    config = f"[Interface]\nPrivateKey = {private_key}\nListenPort = 51821\nAddress = 10.77.0.1/24\n"
    systemd_node.write("/etc/wireguard/wg1.conf", config, mode=0o600)
    systemd_node.run(["systemctl", "enable", "--now", "wg-quick@wg1"])
    try:
        assert systemd_node.run(["wg", "show", "wg1", "public-key"]).stdout == public_key
        # What nothing brings back.
        systemd_node.write("/run/before-reboot", "")
        systemd_node.run(["ip", "link", "add", "by-hand", "type", "bridge"])

        systemd_node.reboot()

        assert systemd_node.run(["systemctl", "is-active", "wg-quick@wg1"]).stdout == "active\n"
        assert systemd_node.run(["wg", "show", "wg1", "public-key"]).stdout == public_key
        assert "10.77.0.1/24" in systemd_node.run(["ip", "address", "show", "dev", "wg1"]).stdout
        assert systemd_node.run(["test", "-e", "/run/before-reboot"], check=False).returncode == 1
        assert systemd_node.run(["ip", "link", "show", "by-hand"], check=False).returncode == 1
        assert "ping: pong" in ansible_ping(systemd_node)
    finally:
        systemd_node.run(["systemctl", "disable", "--now", "wg-quick@wg1"])
        systemd_node.run(["rm", "/etc/wireguard/wg1.conf"])


def test_second_node_is_another_one_that_the_first_can_reach(
    systemd_node: SystemdNode, systemd_nodes: NodeFactory
) -> None:
    other = systemd_nodes("node2")
    assert other is systemd_nodes("node2")
    assert other.ssh(["hostname"]).stdout.strip() == "node2"
    assert other.read("/etc/machine-id") != systemd_node.read("/etc/machine-id")
    systemd_node.run(["ping", "-c", "1", "-W", "2", other.address])
    systemd_node.run(["ping", "-c", "1", "-W", "2", other.address6])
