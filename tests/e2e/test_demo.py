"""The demo as a whole: it says what it saw, cleans up whatever happens, and its exit code can be relied on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.demo import playbook
from tests.demo.__main__ import main
from tests.lab.fleet import ROOT
from tests.lab.namespaces import namespaces_of

_NAME = f"d{os.getpid()}"


def test_every_step_passes(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=600, env=without_terminal()
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = read(tmp_path)
    assert report["ok"] is True
    assert [step["name"] for step in report["steps"] if not step["ok"]] == []
    assert len(report["steps"]) == 12
    lines = done.stdout.splitlines()
    assert [line.split(" ✓ ")[0].strip() for line in lines[1:-1]] == [
        step["name"] for step in report["steps"]
    ]
    assert "\x1b" not in done.stdout
    assert namespaces_of(_NAME) == []
    assert not secrets_in(tmp_path, done.stdout)


def test_a_failed_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yml"
    task = {"ansible.builtin.fail": {"msg": "no such luck"}, "when": "inventory_hostname == 'node2'"}
    broken.write_text(
        yaml.safe_dump([{"hosts": "nodes", "gather_facts": False, "tasks": [task]}]), encoding="utf-8"
    )
    monkeypatch.setattr(playbook, "SITE", broken)

    code = main(["--name", _NAME, "--directory", str(tmp_path)])

    assert code == 1
    report = read(tmp_path)
    assert report["ok"] is False
    assert [(step["name"], step["ok"]) for step in report["steps"]] == [
        ("Build the lab", True),
        ("Run site.yml over SSH", False),
        ("Take the lab down", True),
    ]
    assert "no such luck" in report["steps"][1]["detail"]
    said = capsys.readouterr().out
    assert f"see {tmp_path}/site.log" in said
    assert "3 steps, 1 failed" in said
    assert "no such luck" in (tmp_path / "site.log").read_text(encoding="utf-8")
    assert namespaces_of(_NAME) == []


def test_an_interrupt_cleans_up(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        log = tmp_path / "site.log"
        while demo.poll() is None and not (log.exists() and "TASK" in log.read_text(encoding="utf-8")):
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=120)

    assert demo.returncode == 128 + signal.SIGINT, said
    assert [(step["name"], step["ok"]) for step in read(tmp_path)["steps"]] == [
        ("Build the lab", True),
        ("Run site.yml over SSH", False),
        ("Take the lab down", True),
    ]
    assert read(tmp_path)["ok"] is False
    assert namespaces_of(_NAME) == []


def test_without_root_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["--name", _NAME, "--directory", str(tmp_path)]) == 2

    assert "needs root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.demo", "--name", _NAME, "--directory", str(directory)]


def without_terminal() -> dict[str, str]:
    """This environment, with what could make the demo write anything but plain UTF-8 left out."""
    return {**os.environ, "PYTHONIOENCODING": "utf-8"}


def read(directory: Path) -> Any:
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def secrets_in(directory: Path, said: str) -> list[str]:
    """The private and preshared keys of the demo's variables that its output, logs or report hold."""
    texts = [said, *(path.read_text(encoding="utf-8") for path in directory.iterdir() if path.is_file())]
    keys = [
        key
        for path in directory.glob("inventory/host_vars/*.yml")
        for key in re.findall(r"(?:private|preshared)_key: (\S+)", path.read_text(encoding="utf-8"))
    ]
    assert keys
    return [key for key in keys if any(key in text for text in texts)]
