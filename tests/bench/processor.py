"""The processor's time that a bench costs, with all that it starts: programs, servers, the lab's hosts, shared
connections. Where other things run beside it, this says more than the clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = "vpnfleet-bench"
_group: Path | None = None


@contextmanager
def counted() -> Iterator[None]:
    """Count, from now on, what this process and all that it starts use, in a control group (version 2). Where there is
    none, or it may not be used, nothing is counted."""
    global _group
    mount, own = _mount(), _own()
    if mount is None or own is None:
        yield
        return
    before = mount / own.lstrip("/")
    group = before / _NAME
    try:
        group.mkdir(exist_ok=True)
        _move(group)
    except OSError:
        yield
        return
    _group = group
    try:
        yield
    finally:
        _group = None
        with suppress(
            OSError
        ):  # as long as a connection is kept open, the group stays, and the next bench takes it
            _move(before)
            group.rmdir()


def seconds() -> float | None:
    """The processor's time since `counted` began to count, or None when nothing is counted."""
    if _group is None:
        return None
    for line in (_group / "cpu.stat").read_text(encoding="ascii").splitlines():
        name, _blank, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1_000_000
    return None


def _mount() -> Path | None:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _device, where, kind, *_rest = line.split(" ")
        if kind == "cgroup2":
            return Path(where)
    return None


def _own() -> str | None:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def _move(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
