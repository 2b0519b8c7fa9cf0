"""Runs playbooks/site.yml as an operator would, and keeps what it said in a log."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.demo.report import StepFailed
from tests.lab.fleet import ROOT, Lab

SITE = ROOT / "playbooks" / "site.yml"

_TASK = re.compile(r"(?:TASK|RUNNING HANDLER) \[(?:[\w.]+\.)?([^]]+)\]")
_RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ")


def run_site(lab: Lab, inventory: Path, log: Path, progress: Callable[[str], None]) -> dict[str, int]:
    """Converge the lab; how many tasks changed something, by node.

    `progress` is told each task as it begins. Raises StepFailed, which names the log, when the playbook fails.
    """
    command = [str(_ansible_playbook()), "--inventory", str(inventory), "--diff", str(SITE)]
    changed: dict[str, int] = {}
    with log.open("w", encoding="utf-8") as kept:
        kept.write(f"$ {shlex.join(command)}\n")
        kept.flush()
        process = subprocess.Popen(
            command,
            env=lab.ansible_env(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a ^C at the terminal is ours to pass on, once
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                task, recap = _TASK.match(line), _RECAP.match(line)
                if task is not None:
                    progress(task[1])
                if recap is not None:
                    changed[recap[1]] = int(recap[2])
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code != 0:
        raise StepFailed(f"{SITE.name} ended with {code}\n{_first_error(log)}see {shown(log)}")
    return changed


def shown(path: Path) -> str:
    """A path as the reader types it: relative to the checkout where it lies in there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _ansible_playbook() -> Path:
    """That of the virtual environment which runs the demo."""
    return Path(sys.executable).parent / "ansible-playbook"


def _first_error(log: Path) -> str:
    """The line of the log that tells most about a failure, with a line break; nothing where there is none."""
    lines = log.read_text(encoding="utf-8").splitlines()
    for start in ("[ERROR]", "ERROR!", "fatal:"):
        for line in lines:
            if line.startswith(start):
                return line[:300] + "\n"
    return ""


def _end(process: subprocess.Popen[str]) -> None:
    """End the playbook as ^C would; Ansible ends what it started."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
