"""Watching the command lines and environments of all processes of this machine, lab hosts included, for secrets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Reads secrets, one a line, up to an empty line; says "ready"; looks until its input ends; prints what it has found.
_WATCHER = r"""
import os, select, sys
secrets = []
for line in iter(sys.stdin.readline, "\n"):
    secrets.append(line.strip().encode())
print("ready", flush=True)
found, looks = set(), 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    looks += 1
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for kind in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{kind}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if any(secret in text for secret in secrets):
                found.add(kind + ": " + text.split(b"\0")[0].decode(errors="replace"))
print(looks)
for entry in sorted(found):
    print(entry)
"""


class Watch:
    """What was seen: how often it looked, and where a secret stood (never the secret itself)."""

    looks: int = 0
    found: tuple[str, ...] = ()


@contextmanager
def watch_processes(secrets: Iterable[str]) -> Iterator[Watch]:
    """Look at every process again and again; what was found is known after the block."""
    watch = Watch()
    process = subprocess.Popen(
        [sys.executable, "-c", _WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("".join(f"{secret}\n" for secret in secrets) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        yield watch
        looks, *found = process.communicate(timeout=60)[0].splitlines()
        watch.looks, watch.found = int(looks), tuple(found)
    finally:
        process.kill()
        process.wait()
