"""The server as a process of its own, as `python -m api_shim serve` starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.registry_fleet import RegistryFleet
from tests.lab.fleet import ROOT

_START_SECONDS = 60.0
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
            **_UNLIMITED,
            **self.settings,
        }

    def key(self, *scopes: str) -> str:
        """A key with these scopes, made by the command."""
        name = "-".join(scopes)
        keys = self.fleet.api_keys
        if name not in keys:
            options = [word for scope in scopes for word in ("--scope", scope)]
            keys[name] = self.command("keys", "create", f"test-{name}", *options).split()[-1]
        return keys[name]

    def command(self, *arguments: str) -> str:
        """What `python -m api_shim` says."""
        return subprocess.run(
            [sys.executable, "-m", "api_shim", *arguments],
            cwd=ROOT,
            env=self.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api_shim", "serve"],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            for line in self.said()[before:].splitlines():
                if '"listening"' in line:
                    self.url = json.loads(line)["url"]
                    return
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

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
