"""Whole plays, as an operator runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab.fleet import ROOT, Lab

RAW_DUMP = {"name": "Read", "ansible.builtin.raw": "wg show all dump"}


def play(folder: Path, name: str, task: dict[str, Any], vars_file: Path | None = None) -> Path:
    """Write a play of one task on node1."""
    path = folder / f"{name}.yml"
    content: dict[str, Any] = {"name": name, "hosts": "node1", "gather_facts": False}
    if vars_file is not None:
        content["vars_files"] = [str(vars_file)]
    path.write_text(json.dumps([{**content, "tasks": [{"name": name, **task}]}]), encoding="utf-8")
    return path


def run(lab: Lab, path: Path, changed: bool | None = None) -> None:
    """Run a play; raises RuntimeError with its output when it fails, or when it changed something unlike `changed`."""
    result = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", str(path)],
        cwd=ROOT,
        env=lab.ansible_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 or (changed is not None and f"changed={int(changed)} " not in result.stdout):
        raise RuntimeError(f"{path.name}: {result.stdout[-3000:]}{result.stderr[-3000:]}")
