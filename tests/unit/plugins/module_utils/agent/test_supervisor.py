"""A front that does not end, or does not start, in its time is killed: with real processes in the place of fronts."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import (
    front_process,
    limits,
    supervisor,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front_process import FrontProcess
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.supervisor import Settings, Supervisor

# It has the arguments of a front's, and never heeds that its standard input has ended.
PROGRAM = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[4]))
channel.sendall(SAID)
while True:
    time.sleep(60)
"""
READY = b'\0\0\0\x0e\0\0\0\0{"ready":true}'


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FrontProcess]]:
    """All that are started."""
    started: list[FrontProcess] = []

    class Front(FrontProcess):
        def __init__(self, listener: socket.socket, user: str, *files: None) -> None:
            super().__init__(listener, user, *files)
            started.append(self)

    monkeypatch.setattr(supervisor, "FrontProcess", Front)
    monkeypatch.setattr(dump, "remember", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield started
    for number, handler in before.items():
        signal.signal(number, handler)
    for front in started:
        front.kill()
        front.channel.close()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Supervisor]]:
    """A supervisor whose fronts say something, and no more."""
    sockets: list[socket.socket] = []

    def make(said: bytes) -> Supervisor:
        monkeypatch.setattr(front_process, "_PROGRAM", PROGRAM.replace("SAID", repr(said)))
        secrets = tmp_path / "secrets"
        secrets.write_text("s" * 32)
        secrets.chmod(0o600)
        one = Supervisor(Settings("127.0.0.1", 0, str(secrets), str(tmp_path / "state"), "nobody"))
        sockets.append(one._listener)
        return one

    yield make
    for each in sockets:
        each.close()


def ended(fronts: list[FrontProcess]) -> list[int | None]:
    return [front._process.poll() for front in fronts]


def test_one_that_goes_on_when_it_is_asked_to_end_is_killed(
    made: Callable[[bytes], Supervisor],
    fronts: list[FrontProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "END_SECONDS", 0.2)
    agent = made(READY)
    # As SIGTERM does, in the moment in which it is ready.
    monkeypatch.setattr(supervisor, "notify_systemd", lambda told: told == "READY=1" and agent._stop())
    assert agent.run() == 0
    assert ended(fronts) == [-signal.SIGKILL]
    assert "the front does not end, and is killed" in capsys.readouterr().err


def test_one_that_never_gets_ready_is_killed(
    made: Callable[[bytes], Supervisor],
    fronts: list[FrontProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "START_SECONDS", 0.2)
    assert made(b"").run() == 1
    assert ended(fronts) == [-signal.SIGKILL]
    assert "the front does not get ready, and is killed" in capsys.readouterr().err


def test_one_that_is_not_to_be_trusted_is_killed(
    made: Callable[[bytes], Supervisor], fronts: list[FrontProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GONE_SECONDS", 0.2)
    assert made(READY + b"\xff" * 8).run() == 1
    assert ended(fronts) == [-signal.SIGKILL]


def test_when_the_agent_itself_fails_no_front_is_left(
    made: Callable[[bytes], Supervisor], fronts: list[FrontProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_told: str) -> None:
        raise MemoryError

    monkeypatch.setattr(supervisor, "notify_systemd", fail)
    with pytest.raises(MemoryError):
        made(READY).run()
    fronts[0]._process.wait(20)
    assert ended(fronts) == [-signal.SIGKILL]
