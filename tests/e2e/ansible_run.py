"""Tasks run on a lab node by ansible-playbook, many by one call, and their results as Ansible gives them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

_CALLBACKS = Path(__file__).resolve().parent / "callback_plugins"
_CONNECTION_VARIABLES = {"ansible_ssh_use_tty": False}  # else `raw` ends lines as a terminal does

Task = dict[str, Any]


class Named(Protocol):
    """A host: of the lab, or with a real systemd."""

    @property
    def name(self) -> str:
        """As the inventory has it."""


class Reachable(Protocol):
    """What knows how Ansible reaches it."""

    def ansible_env(self) -> dict[str, str]:
        """The environment to run Ansible in."""


class Unsafe(str):
    """A text that is data in a playbook, whatever looks like a template in it."""


class Vaulted(str):
    """A text in a playbook that ansible-vault has encrypted."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _unsafe(dumper: yaml.SafeDumper, text: Unsafe) -> yaml.ScalarNode:
    # Ansible reads an empty text with this tag as null.
    return dumper.represent_scalar("!unsafe" if text else "tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(Unsafe, _unsafe)
_Dumper.add_representer(Vaulted, lambda dumper, text: dumper.represent_scalar("!vault", str(text), style="|"))


@dataclass(frozen=True)
class Result:
    """What one task answered."""

    status: str
    answer: dict[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.answer.get("changed"))

    @property
    def failed(self) -> bool:
        return self.status != "ok"

    @property
    def message(self) -> str:
        return str(self.answer.get("msg", ""))

    @property
    def diff(self) -> list[dict[str, str]]:
        """The diffs of what changes; empty when nothing does."""
        found = self.answer.get("diff") or []
        return [found] if isinstance(found, dict) else list(found)

    @property
    def stdout(self) -> str:
        return str(self.answer.get("stdout", ""))


@dataclass(frozen=True)
class Run:
    """A playbook that ran to its end: the results by task name, all that it printed, and its exit code."""

    results: dict[str, Result]
    output: str
    code: int

    def __getitem__(self, task: str) -> Result:
        return self.results[task]


def task(name: str, module: str, arguments: Mapping[str, Any], check: bool = False, **keywords: Any) -> Task:
    """A task of one of our modules, with its diff. A failure is a result like any other."""
    return {
        "name": name,
        f"vpnfleet.wireguard.{module}": dict(arguments),
        "check_mode": check,
        "diff": True,
        "ignore_errors": True,
        **keywords,
    }


def script(name: str, text: str) -> Task:
    """A shell script on the node; it must succeed."""
    return {"name": name, "ansible.builtin.raw": Unsafe("set -eu\n" + text)}


def playbook(node: Named, tasks: Sequence[Task], variables: Mapping[str, Any] | None = None) -> str:
    """The text of a playbook with one play on `node`."""
    play = {
        "name": "Tasks of a test",
        "hosts": node.name,
        "gather_facts": False,
        "vars": {**_CONNECTION_VARIABLES, **(variables or {})},
        "tasks": list(tasks),
    }
    return yaml.dump([play], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def start_play(
    lab: Reachable,
    node: Named,
    tasks: Sequence[Task],
    folder: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> subprocess.Popen[str]:
    """Start ansible-playbook; finish_play gives its results. `folder` takes its files and must be its own."""
    (folder / "playbook.yml").write_text(playbook(node, tasks, variables), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "ansible", "playbook", *options, str(folder / "playbook.yml")],
        env={
            **lab.ansible_env(),
            "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "task_results",
            "ANSIBLE_NOCOLOR": "1",
            "TASK_RESULTS": str(folder / "results.jsonl"),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_play(process: subprocess.Popen[str], folder: Path, timeout: float = 600) -> Run:
    """Wait for the end. The test fails when a task gave no result, or one of the node's own scripts failed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    kept = folder / "results.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    results: dict[str, Result] = {}
    for line in lines:
        entry = json.loads(line)
        assert entry["task"] not in results, f"two tasks are named {entry['task']}"
        results[entry["task"]] = Result(entry["status"], entry["result"])
    assert process.returncode in (0, 2), output
    assert all(result.status in ("ok", "failed") for result in results.values()), output
    assert results, output
    return Run(results, output, process.returncode)


def play(
    lab: Reachable,
    node: Named,
    tasks: Sequence[Task],
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Run:
    """Run `tasks` on `node`; names must differ. All of them ran, or the test fails."""
    with tempfile.TemporaryDirectory(prefix="vpnfleet-play-") as name:
        folder = Path(name)
        process = start_play(lab, node, tasks, folder, options, environment, variables)
        run = finish_play(process, folder)
    missing = [entry["name"] for entry in tasks if entry["name"] not in run.results]
    assert not missing, f"these tasks did not run: {missing}\n{run.output}"
    return run
