"""Locks between real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import lock

HOLDER = """
import sys
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import lock
lock.FOLDER = sys.argv[1]
with lock.locked(sys.argv[2:]):
    print("held", flush=True)
    if sys.stdin.readline() == "forget\\n":
        for name in sys.argv[2:]:
            lock.forget(name)
"""


class Holder:
    """Another process that holds locks until it is told otherwise."""

    def __init__(self, folder: Path, *names: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), *names],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_until_held(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def end(self, order: str = "") -> None:
        self.process.communicate(f"{order}\n", timeout=30)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "FOLDER", str(tmp_path / "run"))
    return tmp_path / "run"


def free(name: str) -> bool:
    with lock.locked([name]) as busy:
        return not busy


def test_the_folder_is_made_for_us_alone(folder: Path) -> None:
    with lock.locked(["wg0", "wg1", "wg0"]):
        assert names(folder) == ["wg0.lock", "wg1.lock"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "wg0.lock").stat().st_mode) == 0o600


def test_no_interfaces(folder: Path) -> None:
    with lock.locked([]):
        assert names(folder) == []


def test_another_process_is_kept_out_until_the_holder_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder(folder, "wg0")
    holder.wait_until_held()
    monkeypatch.setattr(lock, "WAIT", 0.1)
    with lock.locked(["wg0", "wg1"]) as busy:
        assert busy == {"wg0": "wg0 has been busy with another run for 0 s; try again when that has ended"}
    assert free("wg1")  # others are not concerned
    holder.end()
    assert free("wg0")


@pytest.mark.usefixtures("folder")
def test_what_a_killed_holder_had_begun_is_known_to_the_next() -> None:
    assert lock.unfinished("wg0") == ""
    with lock.locked(["wg0", "wg1"]):
        lock.begin("wg0", "creating")
        lock.begin("wg1", "changing")
        lock.end("wg1")
    assert [lock.unfinished(name) for name in ("wg0", "wg1")] == ["creating", ""]
    with lock.locked(["wg0"]):
        lock.begin("wg0", "changing")
        assert lock.unfinished("wg0") == "changing"
        lock.end("wg0")
    assert lock.unfinished("wg0") == ""


def test_a_killed_holder_lets_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(folder, "wg0", "wg1")
    holder.wait_until_held()
    monkeypatch.setattr(lock, "WAIT", 0.1)
    assert not free("wg1")
    holder.kill()
    assert free("wg0")
    assert free("wg1")


def test_the_lock_is_let_go_after_an_exception(folder: Path) -> None:
    with pytest.raises(KeyError), lock.locked(["wg0"]):
        raise KeyError
    assert folder.exists()
    assert free("wg0")


def test_waiting_ends_when_the_holder_does(folder: Path) -> None:
    holder = Holder(folder, "wg0")
    holder.wait_until_held()
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(free("wg0")))
    waiting.start()
    time.sleep(0.2)
    assert got == []
    holder.end()
    waiting.join(timeout=30)
    assert got == [True]


def test_a_lock_file_removed_while_waiting_is_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder takes the interface away for good and its lock file with it. Whoever waited then holds what is no
    longer there; a third run would make a new file, and both would run at once."""
    first = Holder(folder, "wg0")
    first.wait_until_held()
    second = Holder(folder, "wg0")  # waits with the old file open
    time.sleep(0.3)
    first.end("forget")
    second.wait_until_held()
    assert (folder / "wg0.lock").exists()
    monkeypatch.setattr(lock, "WAIT", 0.1)
    assert not free("wg0")
    second.end()
    assert free("wg0")


def test_a_lock_file_replaced_in_the_very_moment_is_no_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        calls.append(descriptor)
        if len(calls) == 1:  # between taking the lock and looking
            lock.forget("wg0")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock.locked(["wg0"]):
        assert len(calls) == 2
        assert os.path.samestat(os.fstat(calls[-1]), (folder / "wg0.lock").stat())


def test_forgetting_twice_is_fine(folder: Path) -> None:
    folder.mkdir()
    with lock.locked(["wg0"]):
        lock.forget("wg0")
        lock.forget("wg0")
    assert names(folder) == []


def test_two_runs_over_the_same_interfaces_do_not_wait_for_each_other_forever(folder: Path) -> None:
    names = [f"wg{number}" for number in range(8)]
    done: list[int] = []

    def work(order: list[str]) -> None:
        for _ in range(20):
            with lock.locked(order):
                done.append(1)

    workers = [threading.Thread(target=work, args=(order,)) for order in (names, names[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert len(done) == 40
    assert folder.exists()
