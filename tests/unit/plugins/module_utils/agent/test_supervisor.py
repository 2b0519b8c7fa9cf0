"""A front that does not end, or does not start, in its time is killed: with real processes in the place of fronts."""

from __future__ import annotations

import os
import pwd
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
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.supervisor import (
    CannotStart,
    Settings,
    Supervisor,
    notify_systemd,
)
from tests.unit.plugins.module_utils.agent import user_namespace
from tests.unit.plugins.module_utils.agent.user_namespace import BY_ROOT, USER

# It has the arguments of a front's; most never heed that their standard input has ended.
PROGRAM = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[4]))
channel.sendall(SAID)
while HEEDS:
    sys.exit(len(sys.stdin.read()))
while True:
    time.sleep(60)
"""
Make = Callable[..., Supervisor]
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
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A supervisor whose fronts say something, and no more."""
    sockets: list[socket.socket] = []

    def make(said: bytes, heeds: bool = False, certificate: str | None = None) -> Supervisor:
        monkeypatch.setattr(
            front_process, "_PROGRAM", PROGRAM.replace("SAID", repr(said)).replace("HEEDS", str(heeds))
        )
        secrets = tmp_path / "secrets"
        secrets.write_text("s" * 32)
        secrets.chmod(0o600)
        settings = Settings(
            "127.0.0.1", 0, str(secrets), str(tmp_path / "state"), "nobody", certificate, certificate
        )
        one = Supervisor(settings)
        sockets.append(one._listener)
        return one

    yield make
    for each in sockets:
        each.close()


def ended(fronts: list[FrontProcess]) -> list[int | None]:
    return [front._process.poll() for front in fronts]


def end_when_ready(monkeypatch: pytest.MonkeyPatch, agent: Supervisor) -> None:
    def ready(told: str) -> None:
        if told == "READY=1":
            agent._stop()

    monkeypatch.setattr(supervisor, "notify_systemd", ready)


def test_one_that_goes_on_when_it_is_asked_to_end_is_killed(
    made: Make,
    fronts: list[FrontProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "END_SECONDS", 0.2)
    agent = made(READY)
    # As SIGTERM does, in the moment in which it is ready.
    end_when_ready(monkeypatch, agent)
    assert agent.run() == 0
    assert ended(fronts) == [-signal.SIGKILL]
    assert "the front does not end, and is killed" in capsys.readouterr().err


def test_one_that_never_gets_ready_is_killed(
    made: Make,
    fronts: list[FrontProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "START_SECONDS", 0.2)
    assert made(b"").run() == 1
    assert ended(fronts) == [-signal.SIGKILL]
    assert "the front does not get ready, and is killed" in capsys.readouterr().err


def test_one_that_is_not_to_be_trusted_is_killed(
    made: Make, fronts: list[FrontProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GONE_SECONDS", 0.2)
    assert made(READY + b"\xff" * 8).run() == 1
    assert ended(fronts) == [-signal.SIGKILL]


def test_when_the_agent_itself_fails_no_front_is_left(
    made: Make, fronts: list[FrontProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_told: str) -> None:
        raise MemoryError

    monkeypatch.setattr(supervisor, "notify_systemd", fail)
    with pytest.raises(MemoryError):
        made(READY).run()
    fronts[0]._process.wait(20)
    assert ended(fronts) == [-signal.SIGKILL]


def signals(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """They come before the first front is started, and are heeded one after the other."""

    def send() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(dump, "remember", send)


def test_one_that_is_asked_to_end_before_it_is_ready_ends_when_it_is(
    made: Make, fronts: list[FrontProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    signals(monkeypatch, signal.SIGTERM)
    agent = made(READY, heeds=True)
    # Its end is asked for before it is served, and its being ready is heard of all the same.
    assert agent.run() == 0
    assert ended(fronts) == [0]


def test_one_that_is_ready_only_then_has_no_more_time_for_its_end(
    made: Make, fronts: list[FrontProcess]
) -> None:
    agent = made(READY)
    agent._start_front()
    (front,) = fronts
    front.drain()
    deadline = front.deadline
    agent._take_over(front)
    assert front.deadline == deadline is not None
    front.kill()
    agent._heed_events()
    assert agent._fronts == []


def test_new_secrets_are_read_and_without_a_certificate_the_front_stays(
    made: Make,
    fronts: list[FrontProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signals(monkeypatch, signal.SIGHUP)
    agent = made(READY, heeds=True)
    end_when_ready(monkeypatch, agent)
    assert agent.run() == 0
    assert len(fronts) == 1
    assert "1 secrets read\n" in capsys.readouterr().err


def test_with_a_certificate_a_new_front_takes_over(
    made: Make,
    fronts: list[FrontProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "certificate").touch()
    agent = made(READY, heeds=True, certificate=str(tmp_path / "certificate"))

    def ready(told: str) -> None:
        if told == "READY=1" and len(fronts) == 1:
            # The second one comes while the first new one starts, and starts no other.
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
        elif told == "READY=1":
            agent._stop()

    monkeypatch.setattr(supervisor, "notify_systemd", ready)
    assert agent.run() == 0
    assert ended(fronts) == [0, 0]
    assert capsys.readouterr().err.count("ready on 127.0.0.1 port 0, HTTPS") == 2


def test_one_that_cannot_be_started_leaves_the_one_that_serves(
    made: Make,
    fronts: list[FrontProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    certificate = tmp_path / "certificate"
    certificate.touch()
    agent = made(READY, heeds=True, certificate=str(certificate))
    agent._start_front()
    agent._events.get(timeout=20)()
    certificate.unlink()
    agent._reload()
    assert f"the front cannot be started: [Errno 2] No such file or directory: '{certificate}'" in (
        capsys.readouterr().err
    )
    assert (agent._fronts, ended(fronts)) == (fronts, [None])
    agent._stop()
    agent._heed_events()
    # And with none that serves, the agent ends.
    assert agent._fronts == []
    agent._stopping = False
    assert agent.run() == 1


def test_when_the_one_that_serves_ends_one_that_starts_does_not_stay(
    made: Make, fronts: list[FrontProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    agent = made(b"", heeds=True)
    for _ in range(2):
        agent._start_front()
    fronts[0].ready = True
    fronts[0].kill()
    agent._heed_events()
    assert (agent._fronts, ended(fronts)) == ([], [-signal.SIGKILL, 0])
    assert "the front has ended\n" in capsys.readouterr().err


def test_only_the_one_that_is_late_is_killed(made: Make, fronts: list[FrontProcess]) -> None:
    agent = made(b"")
    for _ in range(3):
        agent._start_front()
    fronts[0].deadline = 0.0
    fronts[1].deadline = None
    agent._kill_late()
    fronts[0]._process.wait(20)
    assert ended(fronts) == [-signal.SIGKILL, None, None]
    for front in fronts[1:]:
        front.kill()
    agent._heed_events()


def test_one_that_may_not_be_killed_has_no_word_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the rights of somebody else than the one who has started it."""
    monkeypatch.setattr(front_process, "_PROGRAM", "import sys; sys.stdin.read()")

    def work() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            front = FrontProcess(listener, USER, None, None)
        if BY_ROOT:
            os.setresuid(*[pwd.getpwnam(USER).pw_uid] * 3)
        front.kill()
        assert front.channel.recv(1) == b""
        front.channel.close()
        front.kill()  # a second time does no harm
        front._say_no_more()
        return 0 if front._gone() else 1

    with (tmp_path / "told").open("w") as told:
        assert user_namespace.ended(user_namespace.forked_as_root(work, stderr=told.fileno())) == 0
    expected = "the front cannot be killed: Operation not permitted\n" * 2 if BY_ROOT else ""
    assert (tmp_path / "told").read_text() == expected


def test_what_is_missing_at_the_start_is_told(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    with pytest.raises(CannotStart, match=r"secrets cannot be read: No such file or directory$"):
        Supervisor(Settings("127.0.0.1", 0, str(secrets), str(tmp_path / "state"), "nobody"))
    secrets.write_text("s" * 32)
    secrets.chmod(0o600)
    with pytest.raises(CannotStart, match=r"cannot be used: Not a directory$"):
        Supervisor(Settings("127.0.0.1", 0, str(secrets), str(secrets / "state"), "nobody"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            CannotStart, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: Address already in use$"
        ):
            Supervisor(Settings("127.0.0.1", port, str(secrets), str(tmp_path / "state"), "nobody"))


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"vpnfleet-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name if abstract else name)
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_a_systemd_that_is_not_there_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    notify_systemd("READY=1")
    assert capsys.readouterr().err == "systemd could not be told: [Errno 2] No such file or directory\n"
