"""Telling a run that is at work from one that was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation, now
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import (
    end_with_parent,
    is_alive,
    lease,
    process_token,
)
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import token_of_the_dead


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as started:
        yield started
        started.kill()


def held_by(owner: str | None, **fields: object) -> Operation:
    return Operation(kind="remove", owner=owner, **fields)


def test_a_process_is_alive_until_it_is_killed(process: subprocess.Popen[bytes]) -> None:
    operation = held_by(process_token(process.pid), lease_until=lease())
    assert is_alive(operation)
    process.send_signal(signal.SIGSTOP)
    assert is_alive(operation)
    process.kill()
    # Not reaped yet: it is a zombie, and no more at work than one that is gone.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(operation)
    process.wait()
    assert not is_alive(operation)


def test_another_process_with_the_same_number_is_another_one(process: subprocess.Popen[bytes]) -> None:
    token = json.loads(process_token(process.pid))
    assert not is_alive(held_by(json.dumps({**token, "started": token["started"] - 1}), lease_until=lease()))


def test_a_command_may_be_called_whatever_it_likes(tmp_path: Path) -> None:
    """The name stands in the middle of the line that is read, in brackets."""
    program = shutil.copy("/bin/sleep", tmp_path / ") Z 1 2 (x")
    with subprocess.Popen([program, "60"], stdin=subprocess.DEVNULL) as process:
        assert is_alive(held_by(process_token(process.pid)))
        process.kill()


@pytest.mark.parametrize("owner", [None, "", "x", "{}", '{"machine": "elsewhere", "pid": 1}'])
def test_of_who_is_not_here_the_lease_decides(owner: str | None) -> None:
    assert not is_alive(held_by(owner))
    assert is_alive(held_by(owner, lease_until=now() + timedelta(seconds=60)))
    assert not is_alive(held_by(owner, lease_until=now() - timedelta(seconds=1)))


def test_who_is_here_needs_no_lease() -> None:
    assert is_alive(held_by(process_token(os.getpid()), lease_until=now() - timedelta(days=1)))
    assert not is_alive(held_by(token_of_the_dead(), lease_until=lease()))


def test_a_worker_ends_with_its_playbook() -> None:
    """It is a session of its own, as Ansible's are, and nobody signals to it."""
    receiving, sending = os.pipe()
    playbook = os.fork()
    if playbook == 0:
        worker = os.fork()
        if worker == 0:
            os.setsid()
            end_with_parent()
            os.write(sending, b"%d" % os.getpid())
            time.sleep(60)
            os._exit(1)
        time.sleep(60)
        os._exit(1)
    os.close(sending)
    with os.fdopen(receiving, "rb", buffering=0) as stream:
        worker = int(stream.read(16))
        os.kill(playbook, signal.SIGKILL)
        os.waitpid(playbook, 0)
        assert stream.read(1) == b""  # whoever had it open has ended
