"""An agent on a lab node: started as its unit would, ended, killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.agent.client import Client
from tests.lab.fleet import ROOT
from tests.lab.host import ENVIRONMENT
from tests.lab.node import Node

MODULE = "ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.run"
SECRET = "0123456789abcdef" * 4
PORT = 8443
FOLDER = "/etc/vpnfleet-agent"
SECRETS = f"{FOLDER}/secrets"
STATE_DIR = "/var/lib/vpnfleet-agent"
LOG = "/run/agent.log"
_PIDS = "/run/agent.pid"
# The PID of the privileged process as the node numbers it.
_START = f'echo $$ >{_PIDS}; exec 2>>{LOG} >/dev/null </dev/null; exec "$@"'


@dataclass
class Agent:
    """The agent of a node. `options` are those beside the usual."""

    node: Node
    port: int = PORT
    options: list[str] = field(default_factory=list)
    certificate: Path | None = None  # for clients
    process: subprocess.Popen[bytes] | None = None

    def client(self, secret: str = SECRET, timeout: float = 60) -> Client:
        return Client(self.node.address, self.port, secret, self.certificate, timeout)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        argv = ["/usr/bin/env", f"PYTHONPATH={ROOT / 'collections'}", "PYTHONDONTWRITEBYTECODE=1"]
        argv += ["/usr/bin/python3", "-m", MODULE, "--listen", f"0.0.0.0:{self.port}", "--user", "nobody"]
        argv += ["--secrets", SECRETS, "--state-dir", STATE_DIR, *self.options]
        self.node.run(["rm", "-f", LOG])
        self.process = subprocess.Popen(
            [*self.node.enter(), "sh", "-c", _START, "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while f"ready on 0.0.0.0 port {self.port}" not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def pid(self) -> str:
        """Of the privileged process, as the node numbers it."""
        return self.node.read(_PIDS).strip()

    def front(self) -> str:
        """The PID of the newest front."""
        return self.node.run(["pgrep", "--newest", "--parent", self.pid(), "python3"]).stdout.strip()

    def signal(self, name: str, *pids: str) -> None:
        self.node.run(["kill", f"-{name}", *pids])

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end; returns its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return -1 if self.process is None else self.process.returncode
        self.signal("TERM", self.pid())
        return self.wait()

    def log(self) -> str:
        return self.node.run(["cat", LOG], check=False).stdout


def prepare(node: Node, *secrets: str) -> None:
    """Put the secrets in place."""
    node.run(["mkdir", "-p", FOLDER, STATE_DIR])
    node.write(f"{SECRETS}.new", "".join(f"{secret}\n" for secret in secrets or (SECRET,)), 0o600)
    node.run(["mv", f"{SECRETS}.new", SECRETS])


@contextmanager
def running(node: Node) -> Iterator[Agent]:
    """An agent that runs, and is gone with all it wrote afterwards."""
    prepare(node)
    agent = Agent(node)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()
        node.run(["rm", "-rf", FOLDER, STATE_DIR, LOG, _PIDS])
