"""The executor that runs playbooks here: the real playbook server and ansible-runner, with small playbooks."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from api_shim.executor import Ended, Progress, Run
from api_shim.executor_local import LocalExecutor
from api_shim.playbook_server import descendants
from api_shim.settings import Settings
from tests.unit.api_shim.until import until

IDS = ("0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002")
KEY = "c2VjcmV0LWtleS1vZi10aGUtcmVnaXN0cnktMTIzNDU="
URL = "sqlite:////nowhere/secret-database-1234.db"
SECRETS = {"VPNFLEET_ENCRYPTION_KEY": KEY, "VPNFLEET_DATABASE_URL": URL}
#: Seconds within which what is cancelled must be over; a busy machine needs some of them.
SOON = 60.0

PLAY = """\
- name: A test
  hosts: localhost
  gather_facts: false
  tasks:
"""
PLAYBOOKS = {
    "publish": """\
    - name: Publish
      ansible.builtin.set_stats:
        data:
          vpnfleet:
            operations: "{{ operations }}"
            check: "{{ ansible_check_mode }}"
""",
    "fail": """\
    - name: Publish
      ansible.builtin.set_stats:
        data:
          vpnfleet:
            status: error
    - name: Fail
      ansible.builtin.fail:
        msg: as asked
""",
    "look": """\
    - name: Publish
      ansible.builtin.set_stats:
        data:
          vpnfleet:
            # Not themselves: what is published is in the run's files.
            environment: "{{ (lookup('ansible.builtin.env', 'VPNFLEET_ENCRYPTION_KEY') ~ ' '
              ~ lookup('ansible.builtin.env', 'VPNFLEET_DATABASE_URL')) | hash('sha256') }}"
            host_keys: "{{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}"
            extra_vars: "{{ vars.keys() | select('match', 'operations|VPNFLEET|secret') | list }}"
    - name: Wait
      ansible.builtin.command: sleep 2
      changed_when: false
""",
    "sleep": """\
    - name: Sleep
      ansible.builtin.command: sleep 3000
      changed_when: false
""",
    # The module's process, its shell and a child of that in a session of its own: all of them want to live.
    "stubborn": """\
    - name: Ignore signals
      ansible.builtin.shell: >-
        trap '' TERM HUP INT; setsid sh -c "trap '' TERM HUP INT; sleep 3000; sleep 3000" & sleep 3000; sleep 3000
      changed_when: false
""",
}
#: An executor that runs `sleep` and says which process its server is.
PARENT = """
import sys, threading
from pathlib import Path
from api_shim.executor import Run
from api_shim.executor_local import LocalExecutor
from api_shim.settings import Settings
executor = LocalExecutor(Settings(project=Path(sys.argv[1]), inventory=Path("inventory.yml")))
executor.start()
print(executor._directory, executor._server.pid, flush=True)
executor.execute(Run("1", sys.argv[2], ()), lambda one: print("told", flush=True), threading.Event())
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    # Not under tmp_path: Ansible makes a socket in it, whose path has to be short.
    with tempfile.TemporaryDirectory() as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield made_project(tmp_path)


def made_project(tmp_path: Path) -> Path:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nhost_key_checking = True\n")
    (tmp_path / "inventory.yml").write_text(
        "all:\n  hosts:\n    localhost:\n      ansible_connection: local\n"
        f"      ansible_python_interpreter: {sys.executable}\n      ansible_remote_tmp: {tmp_path}/remote\n"
    )
    (tmp_path / "playbooks").mkdir()
    for name, tasks in PLAYBOOKS.items():
        (tmp_path / "playbooks" / f"{name}.yml").write_text(PLAY + tasks)
    return tmp_path


@pytest.fixture
def executor(project: Path) -> Iterator[LocalExecutor]:
    made = make(project)
    yield made
    made.close()


def make(project: Path, **more: Any) -> LocalExecutor:
    return LocalExecutor(Settings(project=project, inventory=Path("inventory.yml"), **more))


def execute(
    executor: LocalExecutor,
    playbook: str,
    tell: Callable[[Progress], None] = lambda _one: None,
    cancelled: threading.Event | None = None,
    **more: Any,
) -> Ended:
    run = Run(str(uuid.uuid4()), playbook, IDS, **more)
    return executor.execute(run, tell, cancelled or threading.Event())


def server_of(executor: LocalExecutor) -> int:
    assert executor._server is not None
    return executor._server.pid


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def sleepers(of: int) -> list[int]:
    """The processes of the module, as far down as they are."""
    return [pid for pid in descendants(of) if "sleep 3000" in command(pid)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def runs_in(executor: LocalExecutor) -> list[Path]:
    return list(executor._directory.glob("run-*"))


def begun(
    executor: LocalExecutor, playbook: str
) -> tuple[threading.Thread, threading.Event, list[Ended], list[int]]:
    """A run that sleeps by now: its thread, how to cancel it, how it ended, and all its processes."""
    cancelled = threading.Event()
    ended: list[Ended] = []
    executor.start()
    thread = threading.Thread(target=lambda: ended.append(execute(executor, playbook, cancelled=cancelled)))
    thread.start()
    until(lambda: len(sleepers(server_of(executor))) >= (2 if playbook == "stubborn" else 1))
    return thread, cancelled, ended, descendants(server_of(executor))


def test_what_is_published_and_told(executor: LocalExecutor) -> None:
    told: list[Progress] = []
    ended = execute(executor, "publish", told.append)
    assert ended == Ended("successful", {"operations": list(IDS), "check": False})
    assert told == [Progress("started", "Publish", "localhost"), Progress("done", "Publish", "localhost")]
    assert runs_in(executor) == []


def test_check_mode(executor: LocalExecutor) -> None:
    ended = execute(executor, "publish", check=True)
    assert ended.published == {"operations": list(IDS), "check": True}


def test_a_playbook_that_fails_has_published_all_the_same(executor: LocalExecutor) -> None:
    told: list[Progress] = []
    assert execute(executor, "fail", told.append) == Ended("failed", {"status": "error"})
    assert told[-1] == Progress("failed", "Fail", "localhost")


def test_a_playbook_that_is_not_there(executor: LocalExecutor) -> None:
    ended = execute(executor, "missing")
    assert ended.status in ("failed", "error")
    assert ended.published is None
    assert execute(executor, "publish").status == "successful"


@pytest.mark.parametrize("playbook", ["sleep", "stubborn"])
def test_nothing_of_a_cancelled_run_is_left_when_it_has_ended(executor: LocalExecutor, playbook: str) -> None:
    """Whoever is told that it has ended begins something else on its nodes."""
    thread, cancelled, ended, processes = begun(executor, playbook)
    assert len(processes) >= 4
    began = time.monotonic()
    cancelled.set()
    thread.join(SOON)
    # What is on its way out has no memory any more, and so no command line.
    left = [command(pid) for pid in processes if is_alive(pid) and command(pid)]
    assert time.monotonic() - began < SOON
    assert ended == [Ended("canceled")]
    assert left == []
    until(lambda: descendants(server_of(executor)) == [])
    assert runs_in(executor) == []
    assert execute(executor, "publish").status == "successful"


def test_one_that_is_cancelled_before_it_begins(executor: LocalExecutor) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert execute(executor, "sleep", cancelled=cancelled).status == "canceled"
    until(lambda: descendants(server_of(executor)) == [])


def test_one_that_takes_too_long(project: Path) -> None:
    executor = make(project, run_timeout=3)
    try:
        began = time.monotonic()
        ended = execute(executor, "stubborn")
        assert ended == Ended("error", None, "it took longer than 3 s")
        assert time.monotonic() - began < 3 + SOON
        assert sleepers(server_of(executor)) == []
    finally:
        executor.close()


def test_a_server_that_was_killed_is_started_again(executor: LocalExecutor) -> None:
    assert execute(executor, "publish").status == "successful"
    first = server_of(executor)
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_alive(first))
    assert execute(executor, "publish").status == "successful"
    assert server_of(executor) != first


def test_a_server_that_cannot_start_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = make(project)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/false")
        ended = execute(executor, "publish")
        assert (ended.status, ended.published) == ("error", None)
        assert "does not start" in ended.message
    assert execute(executor, "publish").status == "successful"
    executor.close()


@pytest.mark.parametrize("playbook", ["sleep", "stubborn"])
def test_when_its_parent_is_killed_everything_ends(project: Path, playbook: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(project), playbook],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        directory, server = parent.stdout.readline().split()
        until(lambda: sleepers(int(server)))
        processes = [int(server), *descendants(int(server))]
        parent.kill()
        parent.wait()
        until(lambda: not any(is_alive(pid) for pid in processes))
    # What is left in the file system goes when a later one starts; what is young, somebody may be about to take.
    soon = make(project)
    assert Path(directory).exists()
    soon.close()
    os.utime(directory, (0, 0))
    later = make(project)
    assert not Path(directory).exists()
    later.close()


def test_closing_leaves_nothing(project: Path) -> None:
    executor = make(project)
    execute(executor, "publish")
    server, directory = server_of(executor), executor._directory
    other = make(project)  # must not take the first one's directory away
    assert directory.exists()
    other.close()
    executor.close()
    assert not is_alive(server)
    assert not directory.exists()


def test_secrets_are_the_playbooks_alone(executor: LocalExecutor) -> None:
    """It has them in its environment; no file and no command line does, and nobody else can read what there is."""
    seen: dict[str, bytes] = {}
    commands: set[str] = set()
    modes: set[int] = set()
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(execute(executor, "look")))
    thread.start()
    while thread.is_alive():
        for path in [executor._directory, *runs_in(executor)]:
            with suppress(FileNotFoundError):
                modes.add(stat.S_IMODE(path.stat().st_mode))
        # Not by rglob: a directory that has just gone would end it.
        walked = [Path(folder) / name for folder, _, names in os.walk(executor._directory) for name in names]
        for path in walked:
            try:
                if path.is_file():
                    seen[path.name] = seen.get(path.name, b"") + path.read_bytes()
            except OSError:
                continue  # it has just gone
        commands |= {command(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
        time.sleep(0.05)
    assert {"command", "extravars"} <= seen.keys()
    told = b"\n".join(seen.values())
    for secret in SECRETS.values():
        assert secret.encode() not in told
        assert not [one for one in commands if secret in one]
    assert b"operations" in seen["extravars"]
    assert any("look.yml" in one for one in commands)
    assert modes == {0o700}
    assert runs_in(executor) == []
    assert ended[0].published is not None
    assert ended[0].published["environment"] == hashlib.sha256(f"{KEY} {URL}".encode()).hexdigest()
    assert ended[0].published["host_keys"] is True
    assert ended[0].published["extra_vars"] == ["operations"]


def test_two_runs_at_once_do_not_mix(executor: LocalExecutor) -> None:
    thread, cancelled, ended, _processes = begun(executor, "sleep")
    found = execute(executor, "publish")
    assert found == Ended("successful", {"operations": list(IDS), "check": False})
    assert thread.is_alive()
    assert len(runs_in(executor)) == 1
    cancelled.set()
    thread.join(SOON)
    assert ended == [Ended("canceled")]
