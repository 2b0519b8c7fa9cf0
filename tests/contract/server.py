"""The server as a process of its own, as `python -m api_shim serve` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.registry_fleet import RegistryFleet
from tests.serve.process import make_key, start

#: Which coverage's configuration measures the servers with all that they start; `make test` sets it.
_MEASURED_BY = os.environ.get("SERVERS_COVERAGE")
#: Limits are tested by themselves.
_UNLIMITED = {
    f"VPNFLEET_RATE_LIMIT_{name}": "" for name in ("DRIFT_NODE", "DRIFT_ALL", "RECONCILE", "NODE_UPDATE")
}


@dataclass
class Server:
    """A server on a fleet's registry. `log` is all that it has said."""

    fleet: RegistryFleet
    settings: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    def environment(self) -> dict[str, str]:
        """What it is started with."""
        return {
            **self.fleet.environment(),
            "VPNFLEET_INVENTORY": str(self.fleet.folder / "registry.yml"),
            "VPNFLEET_PORT": "0",
            **({"COVERAGE_PROCESS_START": _MEASURED_BY} if _MEASURED_BY else {}),
            **_UNLIMITED,
            **self.settings,
        }

    def key(self, *scopes: str) -> str:
        """A key with these scopes, made by the command."""
        name = "-".join(scopes)
        keys = self.fleet.api_keys
        if name not in keys:
            keys[name] = make_key(self.environment(), f"test-{name}", *scopes)
        return keys[name]

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process, self.url = start(self.environment(), self.log)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def client(self, *scopes: str, timeout: float = 120, **options: Any) -> httpx.Client:
        """A client with a key of these scopes, none for none."""
        headers = {"X-API-Key": self.key(*scopes)} if scopes else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, **options)

    def ended(self, number: str, seconds: float = 120) -> dict[str, Any]:
        """An operation, when it has ended."""
        deadline = time.monotonic() + seconds
        with self.client("ops") as client:
            while True:
                found: dict[str, Any] = client.get(f"/api/operations/{number}").json()
                if found["state"] not in ("pending", "running"):
                    return found
                assert time.monotonic() < deadline, found
                time.sleep(0.1)


@contextmanager
def served(fleet: RegistryFleet, folder: Path, **settings: str) -> Iterator[Server]:
    """A server that listens, and is gone at the end; `settings` are variables without their prefix."""
    named = {f"VPNFLEET_{name.upper()}": value for name, value in settings.items()}
    server = Server(fleet, named, folder / "server.log")
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
