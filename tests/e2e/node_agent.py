"""The agent on a node of the lab, as playbooks/agent.yml puts it there; there is no systemd that would start it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.lab.node import Node

ROOT = "/usr/local/lib/vpnfleet-agent"
ETC = "/etc/vpnfleet-agent"
SECRETS = f"{ETC}/secrets"
LOG = "/var/log/vpnfleet-agent.log"
PORT = 8443
_PID = "/run/vpnfleet-agent.pid"
_CLOCK = "/run/vpnfleet-clock"
_START = f"""
echo $$ >{_PID}
export PYTHONPATH={_CLOCK}:{ROOT}/current
exec /usr/bin/python3 -m ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.run --listen '[::]:{PORT}' \
    --secrets {SECRETS} --state-dir /var/lib/vpnfleet-agent --user vpnfleet-agent \
    --certificate {ETC}/tls/current/certificate.pem --key {ETC}/tls/current/key.pem </dev/null >>{LOG} 2>&1
"""
_PATIENCE = 30.0


@dataclass(frozen=True)
class NodeAgent:
    """One node's agent."""

    node: Node

    def start(self, clock_off: int = 0) -> None:
        """Start it, and wait until it is ready. Its clock is so many seconds off."""
        # Python imports this by itself.
        clock = f"import time\nright = time.time\ntime.time = lambda: right() + {clock_off}\n"
        self.node.run(["mkdir", "-p", _CLOCK])
        self.node.write(f"{_CLOCK}/sitecustomize.py", clock)
        ready = self._ready()
        self.node.run(["setsid", "--fork", "sh", "-c", _START])
        deadline = time.monotonic() + _PATIENCE
        while self._ready() == ready:
            assert time.monotonic() < deadline, f"the agent does not start:\n{self.log()}"
            time.sleep(0.05)

    def signal(self, name: str) -> None:
        """Send its privileged process a signal."""
        self.node.run(["sh", "-c", f'kill -{name} "$(cat {_PID})"'])

    def stop(self, name: str = "TERM") -> None:
        """End it, and wait for its end."""
        self.signal(name)
        deadline = time.monotonic() + _PATIENCE
        while self._lives():
            assert time.monotonic() < deadline, f"the agent does not end:\n{self.log()}"
            time.sleep(0.05)

    def restart(self) -> None:
        """With the files as they are now."""
        self.stop()
        self.start()

    def log(self) -> str:
        """What it has said."""
        return self.node.run(["cat", LOG], check=False).stdout

    def _lives(self) -> bool:
        state = self.node.run(["sh", "-c", f'cat /proc/"$(cat {_PID})"/status'], check=False).stdout
        return "State:" in state and "State:\tZ" not in state

    def _ready(self) -> int:
        return self.log().count("ready on ")
