"""What systemd hands over is taken once, by the process that it is for, and is a listening socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import socket_activation as module
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.socket_activation import inherited


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    made = socket.create_server(("127.0.0.1", 0))
    yield made
    made.close()


def hand_over(
    monkeypatch: pytest.MonkeyPatch, what: socket.socket, count: str = "1", pid: int | None = None
) -> None:
    """As systemd does, but for the number, which the test has in use."""
    monkeypatch.setattr(module, "_FIRST", os.dup(what.fileno()))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "agent.socket")


def test_a_listening_socket_is_taken_once(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over(monkeypatch, listener)
    os.set_inheritable(module._FIRST, True)
    taken = inherited()
    assert taken is not None
    with taken:
        assert taken.getsockname() == listener.getsockname()
        assert not taken.get_inheritable()  # by what the agent starts
        assert [name for name in os.environ if name.startswith("LISTEN_")] == []
        assert inherited() is None


@pytest.mark.parametrize(("count", "pid"), [("", None), ("0", None), ("1", 1)])
def test_what_is_for_nobody_or_another_process_is_left(
    count: str, pid: int | None, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(monkeypatch, listener, count, pid)
    assert inherited() is None
    assert "LISTEN_FDS" not in os.environ
    os.close(module._FIRST)  # it is still open


@pytest.mark.parametrize("count", ["2", "x"])
def test_more_than_one_is_refused(
    count: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(monkeypatch, listener, count)
    with pytest.raises(OSError, match="something else than one listening socket"):
        inherited()


def test_a_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        hand_over(monkeypatch, silent)
        with pytest.raises(OSError, match="something else than one listening socket"):
            inherited()
