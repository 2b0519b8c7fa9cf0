"""The lab itself: what its hosts are, that they can be broken and mended, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import FreshLab
from tests.lab import host as lab_host
from tests.lab.errors import LabError
from tests.lab.fleet import ROOT, Lab
from tests.lab.host import CommandFailed
from tests.lab.namespaces import namespaces_of
from tests.lab.node import Node


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lab that the test builds by itself."""
    name = f"t{os.getpid()}-own"
    yield name
    Lab(name).down()


# -- hosts


@pytest.mark.parametrize("family", ["address", "address6"])
def test_nodes_answer_ssh_with_the_known_host_key(lab: Lab, family: str) -> None:
    for node in lab.nodes:
        assert _ssh(lab, getattr(node, family), "hostname").stdout == f"{node.name}\n"


def test_ssh_refuses_a_node_with_another_host_key(lab: Lab, tmp_path: Path) -> None:
    first, second = lab.nodes
    swapped = tmp_path / "known_hosts"
    swapped.write_text(
        lab.known_hosts.read_text()
        .replace(first.address, "first")
        .replace(second.address, first.address)
        .replace("first", second.address)
    )
    refused = _ssh(lab, first.address, "hostname", known_hosts=swapped)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_ansible_reaches_the_nodes_of_the_generated_inventory(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "adhoc", "nodes", "--one-line", "-m", "ansible.builtin.ping"],
        env=lab.ansible_env(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in sorted(done.stdout.splitlines())] == ["node1", "node2"]


def test_sftp_writes_to_the_node(lab: Lab, tmp_path: Path) -> None:
    node = lab.nodes[0]
    (tmp_path / "sent").write_text("by sftp\n")
    command = ["sftp", *_ssh_options(lab.known_hosts, lab.ssh_key), "-b", "-", f"root@{node.address}"]
    batch = f"put {tmp_path / 'sent'} /run/sent\n"
    subprocess.run(command, input=batch, capture_output=True, check=True, text=True, timeout=30)
    assert node.read("/run/sent") == "by sftp\n"


@pytest.mark.parametrize("directory", ["/etc", "/root", "/run", "/tmp", "/usr/local", "/var/lib"])
def test_what_a_host_writes_is_its_own(lab: Lab, directory: str) -> None:
    path = f"{directory}/{lab.name}"
    lab.nodes[0].write(path, "node1\n", 0o640)
    assert lab.nodes[0].read(path) == "node1\n"
    assert lab.nodes[0].run(["stat", "-c", "%a", path]).stdout == "640\n"
    assert lab.nodes[1].run(["test", "-e", path], check=False).returncode == 1
    assert lab.devices[0].run(["test", "-e", path], check=False).returncode == 1
    assert not Path(path).exists()


def test_a_host_sees_its_own_processes_and_links_alone(lab: Lab) -> None:
    first, second = lab.nodes
    first.run(["sh", "-c", "sleep 7331 >/dev/null 2>&1 </dev/null &"])
    first.run(["ip", "link", "add", "mine", "type", "bridge"])
    assert "sleep 7331" in first.run(["ps", "ax"]).stdout
    assert "sleep 7331" not in second.run(["ps", "ax"]).stdout
    assert second.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    first.run(["pkill", "-f", "sleep 7331"])
    first.run(["ip", "link", "delete", "mine"])
    assert "Z" not in first.run(["ps", "ax", "-o", "stat="]).stdout


def test_a_fresh_host_forwards_nothing_and_knows_no_name(lab: Lab) -> None:
    node = lab.nodes[0]
    assert node.read("/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert node.read("/proc/sys/net/ipv6/conf/all/forwarding") == "0\n"
    assert node.run(["getent", "hosts", "vpn.example.com"], check=False, timeout=5).returncode == 2


def test_a_command_that_fails_says_why(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match=r"node1: .* ended with 1: .*no-such-file") as caught:
        lab.nodes[0].run(["cat", "/no-such-file"])
    assert caught.value.returncode == 1


def test_a_command_out_of_time_is_ended_with_its_children(lab: Lab) -> None:
    node = lab.nodes[0]
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sh", "-c", "sleep 7332; true"], timeout=0.5)
    assert "sleep 7332" not in node.run(["ps", "ax"]).stdout


# -- devices


def test_a_device_pings_through_its_tunnel_and_counts_what_is_lost(lab: Lab) -> None:
    node, device = lab.nodes[0], lab.devices[0]
    node_key, device_key = _key_pair(node), _key_pair(node)
    node.write(
        "/etc/wireguard/wg9.conf",
        f"[Interface]\nPrivateKey = {node_key[0]}\nListenPort = 51999\nAddress = 10.66.0.1/24, fd66::1/64\n"
        f"[Peer]\nPublicKey = {device_key[1]}\nAllowedIPs = 10.66.0.2/32, fd66::2/128\n",
        0o600,
    )
    node.run(["wg-quick", "up", "wg9"])
    try:
        assert device.handshake_age() is None
        for endpoint in (f"{node.address}:51999", f"[{node.address6}]:51999"):
            device.connect(
                device_key[0],
                ["10.66.0.2/32", "fd66::2/128"],
                node_key[1],
                endpoint,
                ["10.66.0.0/24", "fd66::/64"],
            )
            for target in ("10.66.0.1", "fd66::1"):
                assert device.ping(target, count=3, interval=0.01, timeout=5).lost == 0
            age = device.handshake_age()
            assert age is not None
            assert age < 60
        running = device.start_ping("10.66.0.1", interval=0.02)
        assert running.wait_for_reply()
        time.sleep(0.5)
        node.run(["ip", "link", "set", "wg9", "down"])
        time.sleep(1)
        node.run(["ip", "link", "set", "wg9", "up"])
        time.sleep(0.5)
        result = running.stop()
        assert result.lost > 0
        assert result.received > 0
        assert result.longest_gap_seconds >= 1
    finally:
        device.disconnect()
        node.run(["wg-quick", "down", "wg9"])
        node.run(["rm", "/etc/wireguard/wg9.conf"])
    assert device.ping("10.66.0.1", timeout=1).received == 0
    assert device.handshake_age() is None
    assert device.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]


def test_an_undisturbed_ping_loses_nothing(lab: Lab) -> None:
    device = lab.devices[0]
    for target in (lab.addresses.gateway, lab.addresses.gateway6):
        running = device.start_ping(target, interval=0.02)
        assert running.wait_for_reply()
        time.sleep(0.5)
        result = running.stop()
        assert result.sent > 5
        assert result.lost == 0


def test_a_ping_that_cannot_run_is_no_loss(lab: Lab) -> None:
    with pytest.raises(ValueError, match="not-an-address"):
        lab.devices[0].ping("not-an-address")


# -- faults


def test_a_killed_node_is_silent_and_comes_back_with_its_files(fresh_lab: FreshLab) -> None:
    lab = fresh_lab(2, 0)
    node, other = lab.nodes
    node.write("/etc/wireguard/wg1.conf", "kept\n")
    node.write("/run/wireguard/wg1.sock", "lost\n")
    node.run(["ip", "link", "add", "mine", "type", "bridge"])
    node.run(["sh", "-c", "sleep 7333 >/dev/null 2>&1 </dev/null &"])
    assert _banner(node).startswith("SSH-2.0-")
    node.kill()
    with pytest.raises(LabError, match=r"node1 .* is down"):
        node.run(["true"])
    # Nobody refuses the connection, as a machine without sshd would.
    with pytest.raises((TimeoutError, OSError), check=lambda error: not isinstance(error, ConnectionError)):
        _banner(node)
    assert _banner(other).startswith("SSH-2.0-")
    node.boot()
    assert _banner(node).startswith("SSH-2.0-")  # at once: its neighbours find it where it was
    assert node.read("/etc/wireguard/wg1.conf") == "kept\n"
    assert node.run(["ls", "/run/wireguard"]).stdout == ""
    assert node.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    assert "sleep 7333" not in node.run(["ps", "ax"]).stdout
    assert _ssh(lab, node.address, "hostname").stdout == "node1\n"


def test_a_reboot_applies_the_sysctl_files_of_the_node(fresh_lab: FreshLab) -> None:
    (node,) = fresh_lab().nodes
    node.write("/etc/sysctl.d/99-forward.conf", "net.ipv4.ip_forward = 1\n")
    before = node.pid
    node.reboot()
    assert node.pid != before
    assert node.read("/proc/sys/net/ipv4/ip_forward") == "1\n"
    for _ in range(3):
        node.reboot()
    assert _banner(node).startswith("SSH-2.0-")


def test_a_frozen_node_accepts_connections_and_says_nothing(fresh_lab: FreshLab) -> None:
    (node,) = fresh_lab().nodes
    node.freeze()
    with socket.create_connection((node.address, 22), timeout=5) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        node.thaw()
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"SSH-2.0-")


# -- up and down


def test_up_and_down_twice(name: str) -> None:
    lab = Lab(name, nodes=1, devices=1)
    lab.up()
    pids = [host.pid for host in lab.hosts]
    key = lab.ssh_key.read_text()
    Lab(name, nodes=1, devices=1).up()
    assert [host.pid for host in lab.hosts] == pids
    assert lab.ssh_key.read_text() == key
    everything = _inodes(name)
    lab.down()
    assert _left(name, everything) == []
    assert not lab.is_up()
    lab.down()
    lab.up()
    assert _banner(lab.nodes[0]).startswith("SSH-2.0-")


def test_up_starts_the_hosts_that_are_down(fresh_lab: FreshLab) -> None:
    lab = fresh_lab(2, 0)
    killed, died = lab.nodes
    killed.kill()
    assert died.pid is not None
    os.kill(died.pid, signal.SIGKILL)
    _wait_for(lambda: died.pid is None)
    lab.up()
    for node in lab.nodes:
        assert _banner(node).startswith("SSH-2.0-")


def test_a_running_lab_is_not_taken_for_one_of_another_size(lab: Lab) -> None:
    with pytest.raises(LabError, match="is up with 2 nodes and 3 devices"):
        Lab(lab.name, nodes=3, devices=3).up()
    assert len(lab.nodes) == 2


def test_fifty_hosts(name: str) -> None:
    with Lab(name, nodes=40, devices=10) as lab:
        everything = _inodes(name)
        assert len(everything) == 51
        with ThreadPoolExecutor(10) as pool:
            banners = list(pool.map(_banner, lab.nodes))
        assert all(banner.startswith("SSH-2.0-") for banner in banners)
        assert lab.devices[9].ping(lab.nodes[39].address).lost == 0
    assert _left(name, everything) == []


def test_two_labs_at_a_time(fresh_lab: FreshLab) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: fresh_lab(1, 1), range(2))
    assert one.addresses != other.addresses
    assert _banner(one.nodes[0]).startswith("SSH-2.0-")
    assert one.devices[0].ping(other.nodes[0].address, timeout=1).received == 0
    one.down()
    assert _banner(other.nodes[0]).startswith("SSH-2.0-")
    assert other.devices[0].ping(other.nodes[0].address).lost == 0


def test_down_ends_the_ssh_connections_kept_by_the_controller(fresh_lab: FreshLab, tmp_path: Path) -> None:
    lab = fresh_lab(2, 0)
    sockets = [tmp_path / node.name for node in lab.nodes]
    for node, control in zip(lab.nodes, sockets, strict=True):
        keep = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-o", f"ControlPath={control}"]
        assert _ssh(lab, node.address, "true", *keep).returncode == 0
        assert control.is_socket()
    lab.nodes[1].kill()  # its connection knows nothing of it
    lab.down()
    _wait_for(lambda: not any(control.exists() for control in sockets))


@pytest.mark.parametrize("step", ["KEEPER", "BOOT"])
def test_a_failure_half_way_leaves_nothing(
    name: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.sh"
    script = Path(getattr(lab_host, step)).read_text()
    fault = 'if [ "${2-node3}" = node3 ]; then echo "out of luck" >&2; exit 1; fi\necho ready\n'
    broken.write_text(script.replace("echo ready\n", fault))
    monkeypatch.setattr(lab_host, step, broken)
    lab = Lab(name, nodes=4, devices=1)
    with pytest.raises(LabError, match=r"did not start: .*out of luck"):
        lab.up()
    assert _left(name, set()) == []
    monkeypatch.undo()
    lab.up()
    assert _banner(lab.nodes[2]).startswith("SSH-2.0-")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sign", ["lab.json", "host_keys", "node1"])
def test_an_interrupted_up_leaves_nothing(name: str, number: signal.Signals, sign: str) -> None:
    process = _up_in_the_background(name, sign)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert _left(name, set()) == []


@pytest.mark.parametrize("sign", ["lab.json", "host_keys", "node1"])
def test_down_removes_what_a_killed_up_has_left(name: str, sign: str) -> None:
    process = _up_in_the_background(name, sign)
    everything = _inodes(name)
    process.kill()
    process.communicate(timeout=60)
    assert _left(name, everything) != []
    _lab_command("down", "--name", name)
    assert _left(name, everything) == []


def test_the_command_line(name: str) -> None:
    assert "is up: 1 nodes, 1 devices" in _lab_command("up", "--name", name, "--nodes", "1", "--devices", "1")
    status = _lab_command("status", "--name", name).splitlines()
    assert [line.split("\t")[:2] for line in status] == [["node1", "up"], ["dev1", "up"]]
    assert (
        _lab_command("exec", "--name", name, "dev1", "--", "sh", "-c", "hostname; id -un") == "dev1\nroot\n"
    )
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _lab_command("exec", "--name", name, "node7", "--", "true")
    assert caught.value.returncode == 2
    assert caught.value.stderr == f"lab: lab {name} has no host 'node7', but node1, dev1\n"
    _lab_command("down", "--name", name)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _lab_command("status", "--name", name)
    assert caught.value.returncode == 1
    assert caught.value.stdout == f"lab {name} is down\n"


# -- looking


def _ssh_options(known_hosts: Path, key: Path) -> list[str]:
    options = [
        "BatchMode=yes",
        "ConnectTimeout=10",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known_hosts}",
    ]
    return ["-F", "none", "-i", str(key), *(part for option in options for part in ("-o", option))]


def _ssh(
    lab: Lab, address: str, command: str, *options: str, known_hosts: Path | None = None
) -> subprocess.CompletedProcess[str]:
    ssh = ["ssh", *_ssh_options(known_hosts or lab.known_hosts, lab.ssh_key), *options]
    # Files, not pipes: a connection that stays would keep a pipe open.
    return subprocess.run(
        [*ssh, f"root@{address}", command], capture_output=not options, text=True, timeout=30
    )


def _banner(node: Node) -> str:
    with socket.create_connection((node.address, 22), timeout=5) as connection:
        return connection.recv(100).decode()


def _key_pair(node: Node) -> tuple[str, str]:
    private = node.run(["wg", "genkey"]).stdout.strip()
    return private, node.run(["wg", "pubkey"], input=private).stdout.strip()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _lab_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.lab", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=120)
    return done.stdout


def _up_in_the_background(name: str, sign: str) -> subprocess.Popen[str]:
    """Start to build a lab; return at the sign: a state file, or the namespace of a host."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "up", "--name", name, "--nodes", "30", "--devices", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    signs = (Path("/run/netns") / f"{name}-{sign}", Lab(name).state_dir / sign)
    _wait_for(lambda: any(path.exists() for path in signs))
    assert process.poll() is None
    return process


def _inodes(name: str) -> set[int]:
    """The identities of the lab's network namespaces: processes keep them when the names are gone."""
    return {(Path("/run/netns") / namespace).stat().st_ino for namespace in namespaces_of(name)}


def _left(name: str, inodes: set[int]) -> list[str]:
    """What there is of a lab, looked for all over this machine."""
    left = [f"namespace {path.name}" for path in Path("/run/netns").glob(f"{name}-*")]
    left += [f"link {path.name}" for path in Path("/sys/class/net").glob(f"*{name}*")]
    left += [
        f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line
    ]
    left += [f"lock {path}" for path in Path("/run").glob(f"*{name}*")]
    state = Lab(name).state_dir
    left += [f"state {path}" for path in (state, *state.rglob("*")) if path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")
            inode = (process / "ns" / "net").stat().st_ino
        except OSError:  # ended, or a zombie that nobody reaps: it holds nothing
            continue
        if inode in inodes or ("sh" in command[0] and name in command):
            left.append(f"process {process.name}: {' '.join(command)}")
    return left
