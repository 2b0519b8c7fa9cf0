"""Playbooks at work in processes of their own: waited for, stopped and killed; and how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 300.0


@dataclass(frozen=True)
class Run:
    """How a playbook ended: its exit code, all that it said, what it published, and by host what it changed."""

    code: int
    output: str
    published: dict[str, Any]
    changed: dict[str, int]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """By instance's name, what was published of its operation."""
        return {one["instance"]: one for one in self.published.get("operations", [])}

    @property
    def result(self) -> dict[str, Any]:
        """The same of the only operation."""
        (only,) = self.published["operations"]
        return dict(only)

    @property
    def errors(self) -> list[str]:
        """The messages of tasks that failed."""
        return [json.loads(f'"{found}"') for found in re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', self.output)]

    @property
    def told(self) -> str:
        """The output without the line breaks that depend on a text's length."""
        return re.sub(r"\s+", " ", self.output)


@dataclass
class Started:
    """A playbook at work."""

    process: subprocess.Popen[bytes]
    path: Path  # of its files, without what tells them apart
    outputs: list[str]

    def finish(self, timeout: float = PATIENCE) -> Run:
        """Wait for its end."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the playbook does not end\n{self._output()}")
        output = self._output()
        self.outputs.append(output)
        stats = re.search(r"^\tRUN: (.*)$", output, re.MULTILINE)
        recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)
        return Run(
            self.process.returncode,
            output,
            json.loads(stats[1])["vpnfleet"] if stats else {},
            {host: int(changed) for host, changed in recap},
        )

    def wait(self) -> None:
        """Until it waits itself, before the play that `wait_at` says."""
        deadline = time.monotonic() + PATIENCE
        while not self.path.with_suffix(".waiting").exists():
            assert self.process.poll() is None, f"it has ended\n{self._output()}"
            assert time.monotonic() < deadline, f"it does not come to that play\n{self._output()}"
            time.sleep(0.02)

    def go(self) -> None:
        """Let it go on."""
        self.path.with_suffix(".go").touch()

    def kill(self) -> None:
        """End it by SIGKILL with all its processes, workers and ssh, before any of them can say or do a thing."""
        for pid in self.stop():
            _send(pid, signal.SIGKILL)
        self.process.wait()

    def kill_alone(self) -> None:
        """End the playbook's own process by SIGKILL, and none of its workers; they end by themselves."""
        others = [pid for pid in _tree(self.process.pid) if pid != self.process.pid and _name(pid) != "ssh"]
        assert others, "it has no workers"
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 5
        while any(_name(pid) for pid in others):
            assert time.monotonic() < deadline, "workers go on after their playbook"
            time.sleep(0.01)

    def stop(self) -> list[int]:
        """Let none of its processes go on; returns their ids."""
        stopped: list[int] = []
        while new := [pid for pid in _tree(self.process.pid) if pid not in stopped]:
            for pid in new:
                _send(pid, signal.SIGSTOP)
            stopped += new
        return stopped

    def _output(self) -> str:
        return self.path.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


def finish(*started: Started) -> list[Run]:
    """Wait for the end of all."""
    return [one.finish() for one in started]


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _name(pid: int) -> str:
    """What a process is called; empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return ""
    return "" if fields[2].split()[0] in "ZX" else fields[0].partition("(")[2]
