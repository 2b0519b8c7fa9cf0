"""One test node: a Debian container with systemd as PID 1, its own sshd, /etc and network."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.systemd.access import Access
from tests.systemd.command import CommandFailed, execute
from tests.systemd.image import unified_cgroups
from tests.systemd.network import Network

# All containers that these tests make carry it; podman ps --filter label=… finds what a killed session left.
LABEL = "vpnfleet.systemd-test"

_CAP_SYS_RESOURCE = 24
_HOME = "/root"  # on the node, of whom the tests log in as


class NodeFactory(Protocol):
    """The fixture `systemd_nodes`: gives a started node of that name, of another image where one is named."""

    def __call__(self, name: str, image: str | None = None) -> SystemdNode: ...


class NodeError(RuntimeError):
    """The node did not come up; the text holds what systemd and podman say."""


class SystemdNode:
    """A node to be driven by podman exec or over SSH. Nothing exists before start().

    `number` is that of a node which was made before: the last part of its addresses.
    """

    def __init__(
        self, name: str, network: Network, access: Access, image: str, number: int | None = None
    ) -> None:
        self.name = name
        self._network = network
        self._access = access
        self._image = image
        self._number = network.next_number() if number is None else number
        self._namespace = f"{network.prefix}-{self._number}"
        self.container = f"{network.prefix}-{name}"
        self.address = network.address(self._number)
        self.address6 = network.address6(self._number)
        self.inventory = access.directory / f"{name}.json"

    def start(self, timeout: float = 120) -> None:
        """Make the node and wait, `timeout` seconds at most, until systemd has booted and sshd answers.

        Raises NodeError, CommandFailed or subprocess.TimeoutExpired; remove() then cleans up what there is.
        """
        host_key = self._access.enrol(self.name, self.address)
        self._write_inventory()
        self._network.plug(self._namespace, self._number)
        argv = [*podman(), "create", f"--name={self.container}", f"--hostname={self.name}"]
        # systemd makes its machine-id of it; without one all nodes get that of the machine below.
        argv += [f"--env=container_uuid={uuid.uuid4()}"]
        argv += [f"--label={LABEL}={self._network.prefix}", *machine_flags()]
        # No name server is told either: there is no way to one.
        argv += [f"--network=ns:/run/netns/{self._namespace}", "--dns=none"]
        execute([*argv, "--pull=never", self._image])
        self._put(host_key, "/etc/ssh/ssh_host_ed25519_key")
        self._put(self._access.key.with_suffix(".pub"), f"{_HOME}/.ssh/authorized_keys")
        self._boot(timeout)

    def remove(self) -> None:
        """Remove container and network, whatever state they are in. The node can be started anew after."""
        try:
            execute([*podman(), "rm", "--force", "--ignore", "--time=0", self.container])
        finally:
            self._network.unplug(self._namespace, self._number)

    def reboot(self, *, power_cut: bool = False, timeout: float = 120) -> None:
        """Shut down through systemd, or as if the power went, and boot again.

        The disk stays; processes, interfaces and /run are new. Raises NodeError after `timeout` seconds.
        """
        stop = ["kill", "--signal=KILL"] if power_cut else ["stop", "--time=60"]
        execute([*podman(), *stop, self.container])
        execute([*podman(), "wait", self.container])
        self._network.plug(self._namespace, self._number)
        self._boot(timeout)

    def run(
        self,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the node as root, by podman exec, which also works when its network does not.

        `timeout` is in seconds, after which the caller goes on; the command may stay until the node goes.
        Raises CommandFailed (with `check`), or subprocess.TimeoutExpired.
        """
        exec_ = [*podman(), "exec", *(["--interactive"] if input is not None else []), self.container]
        return execute([*exec_, *argv], input=input, check=check, timeout=timeout)

    def ssh(
        self, argv: Sequence[str], check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line on the node over SSH, the host key checked."""
        ssh = ["ssh", *self._access.options(), "-i", str(self._access.key), f"root@{self.address}", "--"]
        return execute([*ssh, *argv], check=check, timeout=timeout)

    def read(self, path: str) -> str:
        """Return the text of a file on the node."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the node, its directory made where it is missing."""
        script = 'umask 077 && mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], input=text)

    def known_hosts(self) -> str:
        """Return the host keys of all nodes so far."""
        return self._access.known_hosts.read_text()

    def ansible_env(self) -> dict[str, str]:
        """Return the whole environment in which to run ansible commands with `inventory`."""
        return self._access.ansible_env()

    def hostvars(self) -> dict[str, str]:
        """Return how Ansible reaches the node."""
        return {
            "ansible_host": self.address,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self._access.key),
            "ansible_ssh_common_args": " ".join(self._access.options()),
        }

    def _put(self, source: Path, path: str) -> None:
        """Write a file into the container, which need not run: owner root, and the mode as here."""
        execute([*podman(), "cp", str(source), f"{self.container}:{path}"])

    def _write_inventory(self) -> None:
        inventory = {"nodes": {"hosts": {self.name: self.hostvars()}}}
        self.inventory.write_text(json.dumps(inventory, indent=2) + "\n")

    def _boot(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        execute([*podman(), "start", self.container])
        state = ""
        # Until PID 1 listens, systemctl only says that there is nobody to ask.
        while state not in {"running", "degraded"}:
            state = self._attempt(["systemctl", "is-system-running", "--wait"], deadline, state)
        answer = ""
        while answer != "booted":
            answer = self._attempt_ssh(deadline, answer)

    def _attempt(self, argv: Sequence[str], deadline: float, last: str) -> str:
        left = self._left(deadline, f"systemd is `{last}`")
        try:
            result = self.run(argv, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            return "still starting"
        return result.stdout.strip() or _after_a_moment(result.stderr.strip())

    def _attempt_ssh(self, deadline: float, last: str) -> str:
        left = self._left(deadline, f"ssh says `{last}`")
        try:
            result = self.ssh(["echo", "booted"], check=False, timeout=left)
        except subprocess.TimeoutExpired:
            return "nothing"
        return result.stdout.strip() or _after_a_moment(result.stderr.strip())

    def _left(self, deadline: float, state: str) -> float:
        """Return how many seconds are left; raise NodeError with what can be known when none are."""
        left = deadline - time.monotonic()
        if left > 0:
            return left
        details = [f"node {self.name} is not up in time: {state}"]
        inside = [*podman(), "exec", self.container]
        for argv in (
            [*inside, "systemctl", "list-jobs", "--no-pager"],
            [*inside, "systemctl", "--failed", "--no-pager"],
            [*inside, "journalctl", "--no-pager", "--lines=40"],
            [*podman(), "logs", "--tail=40", self.container],
        ):
            try:
                details.append(str(CommandFailed(execute(argv, check=False, timeout=10))))
            except subprocess.TimeoutExpired as error:
                details.append(str(error))
        raise NodeError("\n".join(details))


def _after_a_moment(text: str) -> str:
    time.sleep(0.2)
    return text


def podman() -> list[str]:
    """The command, with what it needs on this machine."""
    return ["podman"] if unified_cgroups() else ["podman", "--runtime=runc"]


def machine_flags() -> list[str]:
    """Return what a container needs here for systemd to run, on a machine with as few rights as this one has."""
    flags = ["--privileged", "--systemd=always", "--pids-limit=-1"]
    if not _has_sys_resource():
        # podman raises these limits by itself, which then is forbidden and ends the container. Our own hard
        # limit can be too much too: podman and conmon have lowered theirs by the time runc sets it.
        flags += ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
    return flags


def _has_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)
