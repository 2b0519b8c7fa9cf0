"""The demo as a whole: it says what it saw, cleans up whatever happens, and its exit code can be relied on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.demo import playbook
from tests.demo.__main__ import main
from tests.e2e.demo_run import NAME, check_every_step, command, read
from tests.lab.fleet import ROOT
from tests.lab.namespaces import namespaces_of


def test_every_step_passes(tmp_path: Path) -> None:
    """test_packages.py does the same on PostgreSQL, with what is installed."""
    check_every_step(tmp_path, f"sqlite:///{tmp_path}/registry.db")


def test_a_failed_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    playbooks = tmp_path / "playbooks"
    playbooks.mkdir()
    for original in playbook.PLAYBOOKS.glob("*.yml"):
        if original.name != "site.yml":
            (playbooks / original.name).symlink_to(original)
    task = {"ansible.builtin.fail": {"msg": "no such luck"}, "when": "inventory_hostname == 'node2'"}
    play = {"hosts": "nodes", "gather_facts": False, "tags": "node", "tasks": [task]}
    (playbooks / "site.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    monkeypatch.setattr(playbook, "PLAYBOOKS", playbooks)

    code = main(["--name", NAME, "--directory", str(tmp_path)])

    assert code == 1
    report = read(tmp_path)
    assert report["ok"] is False
    assert [(step["name"], step["ok"]) for step in report["steps"]] == [
        ("Build the lab", True),
        ("nodes.yml: register the nodes", True),
        ("site.yml: prepare the servers", False),
        ("Take the lab down", True),
    ]
    assert "no such luck" in report["steps"][2]["detail"]
    said = capsys.readouterr().out
    assert f"see {tmp_path}/02-site.log" in said
    assert "4 steps, 1 failed" in said
    assert "no such luck" in (tmp_path / "02-site.log").read_text(encoding="utf-8")
    assert namespaces_of(NAME) == []


def test_an_interrupt_cleans_up(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        log = tmp_path / "02-site.log"
        while demo.poll() is None and not (log.exists() and "TASK" in log.read_text(encoding="utf-8")):
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=120)

    assert demo.returncode == 128 + signal.SIGINT, said
    assert [(step["name"], step["ok"]) for step in read(tmp_path)["steps"]] == [
        ("Build the lab", True),
        ("nodes.yml: register the nodes", True),
        ("site.yml: prepare the servers", False),
        ("Take the lab down", True),
    ]
    assert read(tmp_path)["ok"] is False
    assert namespaces_of(NAME) == []


def test_without_root_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["--name", NAME, "--directory", str(tmp_path)]) == 2

    assert "needs root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
