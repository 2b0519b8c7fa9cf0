# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many waits side by side, each with a time limit of its own. What hangs holds up nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Done(Generic[Found]):
    """How one of them ended: `value` has what came of it, or raises the exception that did; TimeoutError when nothing
    came in time."""

    def __init__(self, name: str, value: Found | None = None, error: BaseException | None = None) -> None:
        self.name = name
        self._value = value
        self._error = error

    def value(self) -> Found:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


def each(
    waits: Iterable[tuple[str, Callable[[], Found]]], at_once: int, limit: float, patience: float
) -> Iterator[Done[Found]]:
    """Do each in a thread, `at_once` of them at a time, and tell how it ended in the order in which they do.

    One that takes longer than `patience` seconds keeps its place no longer: another begins beside it. One that takes
    longer than `limit` seconds is given up, and the programs that its thread has started are ended; those of all when
    nobody asks for the rest.
    """
    ended: SimpleQueue[Done[Found]] = SimpleQueue()
    begun: dict[str, float] = {}
    threads: dict[str, threading.Thread] = {}
    left: Iterator[tuple[str, Callable[[], Found]]] | None = iter(waits)

    def work(name: str, wait: Callable[[], Found]) -> None:
        try:
            ended.put(Done(name, wait()))
        except BaseException as error:  # also what ends a program: whoever waits has to be told
            ended.put(Done(name, error=error))

    try:
        while True:
            while left is not None and _at_work(begun, patience) < at_once:
                following = next(left, None)
                if following is None:
                    left = None
                    break
                name = following[0]
                begun[name] = time.monotonic()
                threads[name] = threading.Thread(target=work, args=following, daemon=True)
                threads[name].start()
            if not begun:
                return
            until = min(begun.values()) + limit
            if left is not None:
                until = min(
                    until, *(since + patience for since in begun.values() if _is_young(since, patience))
                )
            try:
                done = ended.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                for name in [name for name, since in begun.items() if time.monotonic() - since >= limit]:
                    del begun[name]
                    _end_children(threads.pop(name))
                    yield Done(name, error=TimeoutError())
                continue
            if begun.pop(done.name, None) is not None:
                del threads[done.name]
                yield done
    finally:
        for thread in threads.values():
            _end_children(thread)


def _is_young(since: float, patience: float) -> bool:
    return time.monotonic() - since < patience


def _at_work(begun: dict[str, float], patience: float) -> int:
    return sum(_is_young(since, patience) for since in begun.values())


def _end_children(thread: threading.Thread) -> None:
    """End the processes that a thread of this process has started, and that are still there."""
    try:
        pids = Path(f"/proc/self/task/{thread.native_id}/children").read_text(encoding="ascii").split()
    except OSError:
        return  # it has ended just now
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGTERM)
        except ProcessLookupError:
            pass
