"""Network namespaces: batches of `ip` commands, and the processes that live in a namespace."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.errors import LabError

_NETNS = Path("/run/netns")


def path_of(namespace: str) -> Path:
    return _NETNS / namespace


def ip_batch(commands: Sequence[str], namespace: str | None = None) -> None:
    """Run many `ip` commands in one process; the first that fails ends the batch. Raises LabError."""
    inside = [] if namespace is None else ["-netns", namespace]
    text = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(["ip", *inside, "-batch", "-"], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        where = "" if namespace is None else f" in {namespace}"
        raise LabError(f"cannot set up the network{where}: {done.stderr.strip()}")


def namespaces_of(lab: str) -> list[str]:
    """The names of the namespaces that belong to the lab of this name, built in full or not."""
    belongs = re.compile(rf"{re.escape(lab)}-(net|node\d+|dev\d+)")
    try:
        names = [path.name for path in _NETNS.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if belongs.fullmatch(name))


def remove_namespaces(namespaces: Iterable[str]) -> None:
    """Remove the names; a namespace itself ends with its last process. Names already gone are no error."""
    for namespace in namespaces:
        done = subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, text=True)
        if done.returncode != 0:
            # Left over from a crash between the creation of the file and the mount on it.
            path_of(namespace).unlink(missing_ok=True)


def remove_link(link: str, namespace: str | None = None) -> None:
    """Remove a link, and for a veth its other end with it. A link already gone is no error."""
    inside = [] if namespace is None else ["-netns", namespace]
    subprocess.run(["ip", *inside, "link", "delete", link], capture_output=True)


def processes_in(namespaces: Iterable[str]) -> dict[str, list[int]]:
    """The processes, as this machine numbers them, in each of the namespaces. Zombies count as gone."""
    by_identity: dict[tuple[int, int], str] = {}
    for namespace in namespaces:
        try:
            status = path_of(namespace).stat()
        except FileNotFoundError:
            continue
        by_identity[status.st_dev, status.st_ino] = namespace
    found: dict[str, list[int]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            status = (process / "ns" / "net").stat()
        except OSError:  # ended meanwhile, or a zombie
            continue
        name = by_identity.get((status.st_dev, status.st_ino))
        if name is not None:
            found.setdefault(name, []).append(int(process.name))
    return found


def first_process(pids: Iterable[int]) -> int | None:
    """The one among these that is PID 1 of a PID namespace: the outermost, where they are nested."""
    depth_and_pid = []
    for pid in pids:
        numbers = _numbers_in_namespaces(pid)
        if len(numbers) > 1 and numbers[-1] == 1:
            depth_and_pid.append((len(numbers), pid))
    return min(depth_and_pid)[1] if depth_and_pid else None


def _numbers_in_namespaces(pid: int) -> list[int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


def end_processes(namespaces: Sequence[str]) -> None:
    """End by SIGKILL, each by its pid, all that runs in the namespaces; return when nothing does.

    Raises LabError when something is left after 15 seconds.
    """
    deadline = time.monotonic() + 15
    while True:
        left = sorted(pid for pids in processes_in(namespaces).values() for pid in pids)
        if not left:
            return
        if time.monotonic() > deadline:
            raise LabError(f"processes {left} in {', '.join(namespaces)} do not end")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
