"""The packages as `make dist` builds them, and environments to install them into."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.checkout import ROOT


def run(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> str:
    """What a program says on stdout; it must end well."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{argv}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel, in a folder that holds nothing else."""
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, "."], cwd=ROOT)
    (built,) = folder.iterdir()
    return built


def build_tarball(folder: Path) -> Path:
    """The collection's tarball."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return Path(run([sys.executable, ROOT / "scripts/galaxy-tarball", folder], cwd=ROOT, env=env).strip())


def empty_environment(folder: Path) -> Path:
    """The Python of a virtual environment in which nothing is, not even pip: this one's is used on it."""
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=folder.parent)
    return folder / "bin/python"


def pip_install(python: Path, *arguments: str | Path) -> None:
    """pip install in that environment."""
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run([*pip, "--disable-pip-version-check", "--no-input", *arguments], cwd=python.parent, timeout=600)


def tried_versions() -> list[str]:
    """The versions that we pin, as constraints for pip."""
    pinned = (ROOT / "requirements/api.txt").read_text(encoding="utf-8")
    return re.findall(r"^([a-z0-9-]+==[^\\]+)", pinned, re.MULTILINE)
