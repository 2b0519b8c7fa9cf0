"""The demo as a whole: it says what it saw, cleans up whatever happens, and its exit code can be relied on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from tests.demo import playbook
from tests.demo.__main__ import main
from tests.lab.fleet import ROOT
from tests.lab.namespaces import namespaces_of

_NAME = f"d{os.getpid()}"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_step_passes(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    options: list[str] = []
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
        options = ["--database", url]
    done = subprocess.run(
        [*command(tmp_path), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=foreign_environment(),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = read(tmp_path)
    assert report["ok"] is True
    assert [step["name"] for step in report["steps"] if not step["ok"]] == []
    assert len(report["steps"]) == 20
    lines = done.stdout.splitlines()
    assert [line.split(" ✓ ")[0].strip() for line in lines[1:-1]] == [
        step["name"] for step in report["steps"]
    ]
    assert "\x1b" not in done.stdout
    assert namespaces_of(_NAME) == []
    assert not secrets_in(tmp_path, url, done.stdout)


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

    code = main(["--name", _NAME, "--directory", str(tmp_path)])

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
    assert namespaces_of(_NAME) == []


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


def foreign_environment() -> dict[str, str]:
    """This environment with somebody else's registry in it, which the demo must leave alone; output in UTF-8."""
    elsewhere = {"VPNFLEET_DATABASE_URL": "postgresql://192.0.2.1/fleet", "VPNFLEET_ENCRYPTION_KEY": "no key"}
    return {**os.environ, **elsewhere, "PYTHONIOENCODING": "utf-8"}


def read(directory: Path) -> Any:
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def secrets_in(directory: Path, url: str, said: str) -> list[str]:
    """The private and preshared keys of the demo that its output, logs or report hold."""
    asked = [
        json.loads((directory / name).read_text(encoding="utf-8"))
        for name in ("alice-and-bob.json", "alice.json")
    ]
    keys = [
        peer["preshared_key"] for one in asked for customer in one["instances"] for peer in customer["peers"]
    ]
    # bob's instance is still in the registry, and this is how to read its key.
    cipher = Fernet((directory / "registry.key").read_text(encoding="ascii").strip())
    with create_engine(url).connect() as registry:
        sealed = registry.execute(text("SELECT private_key FROM instance")).scalars()
        keys += [cipher.decrypt(key).decode() for key in sealed]
    assert len(keys) == 5
    texts = [
        said,
        *(path.read_text(encoding="utf-8") for path in [*directory.glob("*.log"), directory / "report.json"]),
    ]
    return [key for key in keys if any(key in text for text in texts)]
