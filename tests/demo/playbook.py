"""Runs playbooks as an operator would, and keeps what they said in logs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.demo.report import StepFailed
from tests.lab.fleet import ROOT

PLAYBOOKS = ROOT / "playbooks"

_TASK = re.compile(r"(?:TASK|RUNNING HANDLER) \[(?:[\w.]+ : )?([^]]+)\]")
_RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ")
#: What a playbook publishes by set_stats, as Ansible prints it when it is asked to.
_PUBLISHED = re.compile(r"^\s+RUN: (\{.*\})$")
_PUBLISH = {"ANSIBLE_SHOW_CUSTOM_STATS": "True", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}


@dataclass(frozen=True)
class Ran:
    """A playbook that ended well: how many tasks changed something, by host, and the result object that it published,
    empty where it publishes none."""

    changed: dict[str, int]
    result: dict[str, Any]
    log: Path


@dataclass(frozen=True)
class Installed:
    """An installed copy of the collection: the ansible-playbook that finds it, and the folder of collections in which,
    unless it lies in that program's own environment."""

    ansible_playbook: Path
    collections: Path | None = None

    def environment(self, of_checkout: Mapping[str, str]) -> dict[str, str]:
        """An environment in which nothing leads to the checkout."""
        kept = {name: value for name, value in of_checkout.items() if name != "ANSIBLE_CONFIG"}
        if self.collections is not None:
            kept["ANSIBLE_COLLECTIONS_PATH"] = str(self.collections)
        return kept


@dataclass
class Operator:
    """Who runs the playbooks: those of the checkout, or of what is installed. `environment` says where Ansible's
    configuration and the registry are, `directory` takes the logs, and `progress` is told each task as it begins."""

    inventory: Path
    environment: Mapping[str, str]
    directory: Path
    progress: Callable[[str], None]
    installed: Installed | None = None
    _runs: int = 0

    def run(self, name: str, *arguments: str) -> Ran:
        """Run the playbook of this name with further arguments. Raises StepFailed, naming the log, when it fails."""
        self._runs += 1
        log = self.directory / f"{self._runs:02}-{name}.log"
        if self.installed is None:
            program, environment, folder = _ansible_playbook(), self.environment, ROOT
            playbook = str(PLAYBOOKS / f"{name}.yml")
        else:
            program, folder = self.installed.ansible_playbook, self.directory
            environment = self.installed.environment(self.environment)
            playbook = f"vpnfleet.wireguard.{name}"
        command = [str(program), "--inventory", str(self.inventory), "--diff", playbook]
        changed: dict[str, int] = {}
        published: dict[str, Any] = {}
        with log.open("w", encoding="utf-8") as kept:
            kept.write(f"$ {shlex.join([*command, *arguments])}\n")
            kept.flush()
            process = subprocess.Popen(
                [*command, *arguments],
                env={**environment, **_PUBLISH},
                cwd=folder,
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
                    task, recap, result = _TASK.match(line), _RECAP.match(line), _PUBLISHED.match(line)
                    if task is not None:
                        self.progress(task[1])
                    if recap is not None:
                        changed[recap[1]] = int(recap[2])
                    if result is not None:
                        published = json.loads(result[1])
                code = process.wait()
            except BaseException:
                _end(process)
                raise
        if code != 0:
            raise StepFailed(f"{Path(playbook).name} ended with {code}\n{_first_error(log)}see {shown(log)}")
        return Ran(changed, published.get("vpnfleet", {}), log)


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
