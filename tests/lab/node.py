"""A node of the lab: a host with sshd, which Ansible reaches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.lab.host import Host
from tests.lab.namespaces import processes_in


class Node(Host):
    def freeze(self) -> None:
        """Stop every sshd process: the kernel still accepts connections, but nothing answers on them."""
        self._signal_sshd(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_sshd(signal.SIGCONT)

    def _signal_sshd(self, number: signal.Signals) -> None:
        for pid in processes_in([self.namespace]).get(self.namespace, []):
            try:
                # "sshd-session" is what newer versions call the process of a connection.
                if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").startswith("sshd"):
                    os.kill(pid, number)
            except (FileNotFoundError, ProcessLookupError):
                continue
