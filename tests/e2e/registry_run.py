"""Ansible's programs on a registry, and what they say; they reach no node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from tests.lab.fleet import ROOT

_CALLBACKS = Path(__file__).resolve().parent / "callback_plugins"


@dataclass(frozen=True)
class Run:
    """How a program ended: exit code, its output, the results by task, and what it published by set_stats."""

    code: int
    stdout: str
    stderr: str
    results: dict[str, dict[str, Any]]
    published: dict[str, Any] | None

    @property
    def said(self) -> str:
        """All of the output, without the line breaks that depend on a text's length."""
        return re.sub(r"\s+", " ", self.stdout + self.stderr)


@dataclass(frozen=True)
class Place:
    """A registry's database, its keys (the first encrypts), and a folder for the files of the test."""

    url: str
    keys: tuple[str, ...]
    folder: Path

    def open(self) -> Registry:
        """The registry itself; its schema is made where there is none."""
        os.environ["VPNFLEET_ENCRYPTION_KEY"] = ",".join(self.keys)
        try:
            registry = open_registry(self.url, schema_required=False)
            registry.upgrade()
            return registry
        finally:
            del os.environ["VPNFLEET_ENCRYPTION_KEY"]

    def environment(self, **more: str) -> dict[str, str]:
        """What Ansible gets: nothing of whoever runs the tests but PATH."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "VPNFLEET_DATABASE_URL": self.url,
            "VPNFLEET_ENCRYPTION_KEY": ",".join(self.keys),
            **more,
        }

    def playbook(self, name: str, *arguments: str, **environment: str) -> Run:
        """Run playbooks/{name}.yml in the folder, with an inventory of nothing."""
        path = ROOT / "playbooks" / f"{name}.yml"
        return self.playbook_at(path, "--inventory", "localhost,", *arguments, **environment)

    def playbook_at(self, path: Path, *arguments: str, **environment: str) -> Run:
        """Run a playbook in the folder."""
        results = self.folder / "results.jsonl"
        results.unlink(missing_ok=True)
        done = self._run(
            ["ansible-playbook", *arguments, str(path)],
            ANSIBLE_CALLBACK_PLUGINS=str(_CALLBACKS),
            ANSIBLE_CALLBACKS_ENABLED="task_results",
            ANSIBLE_SHOW_CUSTOM_STATS="1",
            ANSIBLE_CALLBACK_RESULT_FORMAT="json",
            TASK_RESULTS=str(results),
            **environment,
        )
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
        entries = [json.loads(line) for line in lines]
        published = re.search(r"^\tRUN: (.*)$", done.stdout, re.MULTILINE)
        return Run(
            done.returncode,
            done.stdout,
            done.stderr,
            {entry["task"]: entry["result"] for entry in entries},
            json.loads(published[1])["vpnfleet"] if published else None,
        )

    def inventory(self, source: Path, *arguments: str, **environment: str) -> Run:
        """Run ansible-inventory --list."""
        done = self._run(
            ["ansible-inventory", "--inventory", str(source), "--list", "--export", *arguments], **environment
        )
        return Run(done.returncode, done.stdout, done.stderr, {}, None)

    def _run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(**environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )


def a_key() -> str:
    """A fresh encryption key."""
    return Fernet.generate_key().decode()


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    """A database without a schema, on SQLite and on PostgreSQL."""
    return Place(database_url, (a_key(),), tmp_path)


@pytest.fixture
def sqlite(sqlite_url: str, tmp_path: Path) -> Place:
    """For what has nothing to do with the database."""
    return Place(sqlite_url, (a_key(),), tmp_path)
