"""A host of the lab, node or device: its disk, its start and end, and commands on it.

A host is a set of namespaces held by its PID 1 (boot.sh): network, mount, PID and UTS. Nothing about a
running host is kept where it could go stale: its PID 1 is found by its network namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.addresses import Addresses
from tests.lab.errors import LabError
from tests.lab.namespaces import (
    end_processes,
    first_process,
    ip_batch,
    path_of,
    processes_in,
    remove_link,
    remove_namespaces,
)

_HERE = Path(__file__).resolve().parent
KEEPER = _HERE / "keeper.sh"
BOOT = _HERE / "boot.sh"

#: What a command on a host finds in its environment, whoever starts it: nothing of this machine's leaks in.
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "USER": "root",
}


class CommandFailed(subprocess.CalledProcessError):
    """A command on a host ended with an error; the message holds what it wrote to stderr."""

    def __init__(self, host: str, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(done.returncode, done.args, done.stdout, done.stderr)
        self.host = host

    def __str__(self) -> str:
        said = (self.stderr or self.stdout or "").strip()
        return f"{self.host}: {self.cmd!r} ended with {self.returncode}: {said}"


@dataclass(frozen=True)
class Host:
    """`name` is the host's own (`node1`); `address` and `address6` are those of its eth0, without length."""

    lab: str
    name: str
    address: str
    address6: str
    plan: Addresses

    @property
    def namespace(self) -> str:
        return f"{self.lab}-{self.name}"

    @property
    def mac(self) -> str:
        """Of its eth0; a host that boots again keeps it, or its neighbours would send to the old one a while."""
        return "02:76:" + ":".join(f"{int(octet):02x}" for octet in self.address.split("."))

    @property
    def pid(self) -> int | None:
        """The host's PID 1 as this machine numbers it; None when the host is down."""
        return first_process(processes_in([self.namespace]).get(self.namespace, []))

    def enter(self, *, processes: bool = True) -> list[str]:
        """The start of a command line that runs the rest on the host.

        With `processes=False` the command sees the host's files and network but stays in this machine's
        numbering of processes, so that the pid which Popen gives is its own. Raises LabError when down.
        """
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} of lab {self.lab} is down")
        spaces = ["--mount", "--net", "--uts", *(["--pid"] if processes else [])]
        return ["nsenter", "--target", str(pid), *spaces, "--"]

    def run(
        self,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
        check: bool = True,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as root, in `/`, with a clean environment, and take its output as text.

        Raises CommandFailed (a CalledProcessError) unless `check` is false, subprocess.TimeoutExpired after
        `timeout` seconds (the command and its children are ended), LabError when the host is down.
        """
        process = subprocess.Popen(
            [*self.enter(), *argv],
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(input, timeout)
        except BaseException:
            # nsenter waits for the command and would leave it behind; the two share a session of their own.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)
        if check and done.returncode != 0:
            raise CommandFailed(self.name, done)
        return done

    def read(self, path: str) -> str:
        """The text of a file on the host. Raises CommandFailed where there is none."""
        return self.run(["cat", "--", path]).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the host, with the directories it needs."""
        script = 'umask 077; mkdir -p -m 755 -- "$(dirname -- "$1")"; cat >"$1"; chmod -- "$2" "$1"'
        self.run(["sh", "-euc", script, "sh", path, f"{mode:o}"], input=text)

    def boot(self) -> None:
        """Start the host from its disk. Nothing happens when it runs already."""
        if self.pid is None:
            boot([self])

    def kill(self) -> None:
        """End the host as if its power went: the link first, so that nobody is told, then all processes."""
        remove_link(self.name, _net(self.lab))
        end_processes([self.namespace])
        remove_namespaces([self.namespace])

    def reboot(self) -> None:
        """Kill the host and start it again: files are kept, but for /run and /tmp; interfaces are not."""
        self.kill()
        self.boot()


def prepare_disk(host: Host, keeper: int) -> Path:
    """Make the disk of a new host: it takes what the host writes, and hides what is only this machine's.

    Returns the host's /etc as this machine reaches it.
    """
    disk = _disks(keeper) / host.name
    for directory in ("etc", "usr", "var"):
        (disk / directory / "upper").mkdir(parents=True)
        (disk / directory / "work").mkdir()
    etc = disk / "etc" / "upper"
    (disk / "root").mkdir(mode=0o700)
    _empty_directory(etc / "ssh", 0o755)
    _empty_directory(etc / "sysctl.d", 0o755)
    _empty_directory(etc / "wireguard", 0o700)
    _empty_directory(disk / "var" / "upper" / "log", 0o755)
    (etc / "hostname").write_text(f"{host.name}\n", encoding="ascii")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n{host.address6} {host.name}\n",
        encoding="ascii",
    )
    # No line: the resolver asks 127.0.0.1, where nobody listens, and fails at once.
    (etc / "resolv.conf").write_text("# a lab has no name server\n", encoding="ascii")
    (etc / "sysctl.conf").write_text("", encoding="ascii")
    return etc


def start_keeper(lab: str) -> int:
    """Start the process that holds the lab's disks; its pid as this machine numbers it."""
    space = ["unshare", "--mount", "--pid", "--fork", "--propagation", "slave"]
    command = ["nsenter", f"--net={path_of(_net(lab))}", "setsid", "--fork", *space, "sh", str(KEEPER), lab]
    _start({f"the keeper of lab {lab}": command})
    keeper = keeper_of(lab)
    if keeper is None:
        raise LabError(f"the keeper of lab {lab} has ended")
    return keeper


def keeper_of(lab: str) -> int | None:
    """The pid of the lab's keeper; None where the lab does not run."""
    namespace = _net(lab)
    return first_process(processes_in([namespace]).get(namespace, []))


def boot(hosts: Sequence[Host]) -> None:
    """Start hosts of one lab, side by side; return when all are up and sshd listens. Raises LabError."""
    lab = hosts[0].lab
    keeper = keeper_of(lab)
    if keeper is None:
        raise LabError(f"lab {lab} is not up")
    net = _net(lab)
    # A host that died on its own, say by the kill of its PID 1, has left its link and namespace.
    for host in hosts:
        if path_of(host.namespace).exists():
            remove_link(host.name, net)
            remove_namespaces([host.namespace])
    commands = [f"netns add {host.namespace}" for host in hosts]
    commands += [
        f"link add {host.name} netns {net} type veth peer name eth0 address {host.mac} netns {host.namespace}"
        for host in hosts
    ]
    ip_batch(commands)
    ip_batch([f"link set {host.name} master br0 up" for host in hosts], net)
    _start({host.name: _boot_command(host, keeper) for host in hosts})


def _boot_command(host: Host, keeper: int) -> list[str]:
    enter = ["nsenter", f"--net={path_of(host.namespace)}", f"--target={keeper}", "--mount", "--pid", "--"]
    space = ["unshare", "--mount", "--pid", "--uts", "--fork", "--propagation", "slave"]
    plan = host.plan
    addresses = [f"{host.address}/16", f"{host.address6}/64", plan.gateway, plan.gateway6]
    # Forked off, so that the keeper becomes its parent and nothing of ours waits for it.
    return [*enter, "setsid", "--fork", *space, "sh", str(BOOT), host.lab, host.name, *addresses]


def _start(commands: dict[str, list[str]]) -> None:
    """Start commands side by side and read from each until its line `ready`; by name, for messages.

    Raises LabError when one ends without that line, with what it said instead.
    """
    starting: dict[str, subprocess.Popen[str]] = {}
    failures = []
    try:
        for name, command in commands.items():
            starting[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        for name, process in starting.items():
            said = _until_ready(process)
            if said is not None:
                failures.append(f"{name} did not start: {said}")
            process.wait()
    except BaseException:
        # Interrupted: what has not entered its namespaces yet would not be found there.
        for process in starting.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        raise
    if failures:
        more = len(failures) - 1
        raise LabError(failures[0] + (f"; {more} more did not either" if more else ""))


def _until_ready(process: subprocess.Popen[str]) -> str | None:
    """None when the line came, else all that was said."""
    assert process.stdout is not None
    said = []
    with process.stdout as lines:
        for line in lines:
            if line == "ready\n":
                return None
            said.append(line.strip())
    return "; ".join(said) or "it said nothing"


def _disks(keeper: int) -> Path:
    """Where the keeper mounted the disks, seen from outside its mount namespace."""
    return Path("/proc", str(keeper), "root", "mnt")


def _empty_directory(path: Path, mode: int) -> None:
    """A directory that does not let through what this machine has there."""
    path.mkdir()
    path.chmod(mode)
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _net(lab: str) -> str:
    return f"{lab}-net"


def missing_commands(names: Sequence[str]) -> list[str]:
    return [name for name in names if shutil.which(name, path=ENVIRONMENT["PATH"]) is None]
