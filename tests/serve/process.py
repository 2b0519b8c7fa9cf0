"""`python -m api_shim` as a process of its own: its keys, and a server that listens."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.lab.fleet import ROOT

_START_SECONDS = 180.0
_LISTENING = re.compile(r"listening.*?(http://[^\s\"]+)|(http://[^\s\"]+).*?listening")


_PYTHON = Path(sys.executable)


def make_key(
    environment: Mapping[str, str], name: str, *scopes: str, python: Path = _PYTHON, folder: Path = ROOT
) -> str:
    """A key with these scopes. Raises RuntimeError with what the command says. `python` is that of the environment in
    which api_shim is installed, where it is not to be that of the checkout, the folder."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    made = subprocess.run(
        [str(python), "-m", "api_shim", "keys", "create", name, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise RuntimeError(made.stderr.strip())
    return made.stdout.split()[-1]


def start(
    environment: Mapping[str, str], log: Path, python: Path = _PYTHON, folder: Path = ROOT
) -> tuple[subprocess.Popen[bytes], str]:
    """A server and its address, as soon as it listens; what it says is added to `log`. Raises RuntimeError."""
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(python), "-m", "api_shim", "serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a ^C at the terminal is for whoever has started it
        )
    deadline = time.monotonic() + _START_SECONDS
    while True:
        said = log.read_bytes()[before:].decode(errors="replace")
        for line in said.splitlines(keepends=True):
            found = _LISTENING.search(line) if line.endswith("\n") else None
            if found:
                return process, found[1] or found[2]
        if process.poll() is not None:
            raise RuntimeError(f"the server has ended: {said[-2000:]}")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server does not listen: {said[-2000:]}")
        time.sleep(0.05)
