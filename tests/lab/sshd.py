"""SSH of the lab: the keys, sshd's configuration on a node, and the host keys that the controller knows."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.errors import LabError

SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
LogLevel VERBOSE
MaxStartups 100
MaxSessions 100
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
PidFile /run/sshd.pid
"""


def make_keys(keys: Sequence[Path]) -> None:
    """Make one ed25519 key pair at each path (and path.pub), side by side. Raises LabError."""
    running: list[subprocess.Popen[str]] = []
    failures = []
    try:
        for key in keys:
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key.name, "-f", str(key)]
            nothing = subprocess.DEVNULL
            running.append(
                subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, text=True)
            )
        for process in running:
            _, said = process.communicate()
            if process.returncode != 0:
                failures.append(said.strip())
    except BaseException:
        # Interrupted: none may write its key after the lab's files are gone.
        for process in running:
            process.kill()
            process.communicate()
        raise
    if failures:
        raise LabError(f"ssh-keygen failed: {failures[0]}")


def install(etc_ssh: Path, host_key: Path, authorized_key: Path) -> None:
    """Put sshd's configuration and keys into a node's /etc/ssh; sshd starts where they are at boot."""
    _write(etc_ssh / "sshd_config", SSHD_CONFIG, 0o644)
    _write(etc_ssh / "ssh_host_ed25519_key", host_key.read_text(encoding="ascii"), 0o600)
    _write(etc_ssh / "ssh_host_ed25519_key.pub", _public(host_key), 0o644)
    _write(etc_ssh / "authorized_keys", _public(authorized_key), 0o600)


def known_hosts(nodes: Iterable[tuple[Sequence[str], Path]]) -> str:
    """The text of a known_hosts file: for each node its names and addresses, and its host key."""
    lines = []
    for names, host_key in nodes:
        kind, key = _public(host_key).split()[:2]
        lines.append(f"{','.join(names)} {kind} {key}\n")
    return "".join(lines)


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text(encoding="ascii")


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text, encoding="ascii")
    path.chmod(mode)
