"""Waits side by side: none of them holds up another beyond its limit."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.side_by_side import each

LONG = 60.0


class Gate:
    """What hangs until the test ends; `most` is how many were at it together."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._count = threading.Condition()
        self.waiting = 0

    def hang(self) -> str:
        with self._count:
            self.waiting += 1
            self._count.notify_all()
        self.over.wait()
        return "late"

    def until(self, number: int) -> None:
        """Wait until so many hang."""
        with self._count:
            assert self._count.wait_for(lambda: self.waiting >= number, LONG)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.over.set()


def test_all_of_them_are_done_and_told_by_name() -> None:
    waits = [(str(number), partial(int, number)) for number in range(100)]
    found = {done.name: done.value() for done in each(iter(waits), 7, LONG, LONG)}
    assert found == {str(number): number for number in range(100)}


def test_nothing_to_do() -> None:
    assert list(each([], 5, LONG, LONG)) == []


def test_one_that_fails_is_told_and_the_others_are_done() -> None:
    def fail() -> int:
        raise OSError("no way")

    waits: list[tuple[str, Callable[[], int]]] = [("good", lambda: 1), ("bad", fail), ("fine", lambda: 2)]
    found = {done.name: done for done in each(waits, 1, LONG, LONG)}
    assert (found["good"].value(), found["fine"].value()) == (1, 2)
    with pytest.raises(OSError, match="no way"):
        found["bad"].value()


def test_no_more_than_allowed_are_at_work_while_they_are_quick() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    assert len(list(each([(str(n), work) for n in range(200)], 3, LONG, LONG))) == 200
    assert most <= 3


def test_those_that_hang_make_room_and_are_given_up(gate: Gate) -> None:
    """More of them than places: the others have their turn before the first one is given up."""
    waits: list[tuple[str, Callable[[], str]]] = [(f"hung{number}", gate.hang) for number in range(20)]
    waits += [(f"good{number}", lambda: "good") for number in range(20)]
    order = []
    for done in each(waits, 2, limit=6.0, patience=0.05):
        order.append(done.name)
        if done.name.startswith("good"):
            assert done.value() == "good"
        else:
            with pytest.raises(TimeoutError):
                done.value()
    assert [name[:4] for name in order] == ["good"] * 20 + ["hung"] * 20


def test_what_comes_too_late_is_not_told_again(gate: Gate) -> None:
    told = []
    for done in each([("slow", gate.hang), ("other", lambda: "good")], 5, limit=0.2, patience=0.1):
        told.append(done.name)
        gate.over.set()
    assert sorted(told) == ["other", "slow"]


def test_they_are_taken_as_there_is_room(gate: Gate) -> None:
    taken = []

    def waits() -> Iterator[tuple[str, Callable[[], str]]]:
        for number in range(10):
            taken.append(number)
            yield str(number), gate.hang

    running = each(waits(), 2, LONG, LONG)
    thread = threading.Thread(target=lambda: list(running), daemon=True)
    thread.start()
    gate.until(2)
    assert taken == [0, 1]
    gate.over.set()
    thread.join(LONG)
    assert taken == list(range(10))


def test_programs_of_what_is_given_up_are_ended_and_no_others() -> None:
    other = subprocess.Popen(["sleep", "1000"])
    started: list[subprocess.Popen[bytes]] = []

    def hang() -> int:
        started.append(subprocess.Popen(["sleep", "1000"]))
        return started[0].wait()

    try:
        (done,) = each([("hung", hang)], 1, limit=0.5, patience=0.1)
        with pytest.raises(TimeoutError):
            done.value()
        assert started[0].wait(LONG) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_was_started_ends_when_nobody_asks_for_the_rest() -> None:
    started: list[subprocess.Popen[bytes]] = []
    there = threading.Event()

    def hang() -> int:
        started.append(subprocess.Popen(["sleep", "1000"]))
        there.set()
        return started[0].wait()

    def at_once() -> int:
        assert there.wait(LONG)
        return 1

    found = each([("hangs", hang), ("quick", at_once)], 2, LONG, LONG)
    assert next(found).name == "quick"
    found.close()  # type: ignore[attr-defined]
    assert started[0].wait(LONG) == -signal.SIGTERM
