"""The demo as a process, and all that its telling has to show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from tests.lab.fleet import ROOT
from tests.lab.namespaces import namespaces_of

NAME = f"d{os.getpid()}"


def check_every_step(directory: Path, url: str, *options: str) -> None:
    """Run the demo with its registry at `url`: every step passes, is told, and leaves nothing behind."""
    done = subprocess.run(
        [*command(directory), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=foreign_environment(),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = read(directory)
    assert report["ok"] is True
    assert [step["name"] for step in report["steps"] if not step["ok"]] == []
    assert len(report["steps"]) == 20
    lines = done.stdout.splitlines()
    assert [line.split(" ✓ ")[0].strip() for line in lines[1:-1]] == [
        step["name"] for step in report["steps"]
    ]
    assert "\x1b" not in done.stdout
    assert namespaces_of(NAME) == []
    assert not secrets_in(directory, url, done.stdout)


def command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.demo", "--name", NAME, "--directory", str(directory)]


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
