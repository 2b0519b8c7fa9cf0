"""SSH from here to the test nodes: one key for all of them, and host keys that are known beforehand."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.systemd.command import execute

_REPO = Path(__file__).resolve().parents[2]


class Access:
    """Keys, known_hosts and the shared connections of one test session, in a directory of its own.

    What is in the directory already is used again.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.key = directory / "id_ed25519"
        self.known_hosts = directory / "known_hosts"
        # Not below `directory`: the path of a socket must be short.
        self._control = Path(tempfile.mkdtemp(prefix="vfs", dir="/tmp"))
        if not self.key.exists():
            _make_key(self.key, "vpnfleet systemd tests")

    def enrol(self, name: str, address: str) -> Path:
        """Make the host key of a node, know it from now on, and return its private half.

        A second call for the same node returns the same key.
        """
        host_key = self.directory / f"{name}_host_ed25519"
        if host_key.exists():
            return host_key
        _make_key(host_key, name)
        kind, public, *_ = host_key.with_suffix(".pub").read_text().split()
        with self.known_hosts.open("a") as known:
            known.write(f"{address} {kind} {public}\n")
        return host_key

    def options(self) -> list[str]:
        """Return the options with which ssh checks host keys and uses nothing of the user's own."""
        return [
            *("-F", "none"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=none"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes"),
            *("-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=5"),
        ]

    def ansible_env(self) -> dict[str, str]:
        """Return the whole environment in which to run ansible commands against the nodes."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        env["ANSIBLE_CONFIG"] = str(_REPO / "ansible.cfg")
        env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(self._control)
        env["ANSIBLE_LOCAL_TEMP"] = str(self.directory / "ansible-tmp")
        env["ANSIBLE_NOCOLOR"] = "1"
        return env

    def close(self) -> None:
        """End the connections that ansible keeps open, and forget them. The keys stay in `directory`."""
        for socket in self._control.glob("*"):
            execute(["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "node"], check=False)
        shutil.rmtree(self._control, ignore_errors=True)


def _make_key(path: Path, comment: str) -> None:
    execute(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
