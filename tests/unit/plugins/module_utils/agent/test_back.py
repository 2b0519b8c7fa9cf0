"""The privileged process believes nothing of what comes through the channel, and always answers or ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import back as module
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits, replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.authentication import Authentication
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.back import Back
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import LENGTHS, receive, send
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import Replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.secret_file import SecretFile
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.signatures import sign

SECRET = "s" * 32


class Setting:
    """A back that serves in a thread, and the front's end of its channel."""

    def __init__(self, folder: Path) -> None:
        secrets = folder / "secrets"
        secrets.write_text(SECRET)
        secrets.chmod(0o600)
        self.replay = Replay(str(folder / "state"))
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(20)
        self.pool = ThreadPoolExecutor(2)
        self.ready: list[bool] = []
        authentication = Authentication(SecretFile(str(secrets), print), self.replay)
        self.back = Back(theirs, authentication, self.pool)
        self.thread = threading.Thread(target=self.back.serve, args=[lambda: self.ready.append(True)])
        self.thread.start()

    def send(self, **fields: Any) -> None:
        send(self.channel, fields, b"")

    def call(self, **fields: Any) -> tuple[int, bytes]:
        """The status and the body of the answer to a request that is signed, save for what `fields` says."""
        method, path, now = "GET", "/v1/health", str(int(time.time()))
        signed = {"method": method, "path": path, "timestamp": now}
        self.send(**{"id": 1, "signature": sign(SECRET, method, path, b"", now), **signed, **fields})
        said, body = receive(self.channel, limits.LONGEST_ANSWER)
        assert said["id"] == 1
        return said["status"], bytes(body)

    def serves_no_more(self) -> bool:
        self.thread.join(20)
        return not self.thread.is_alive()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.channel.close()
    made.thread.join(20)
    made.pool.shutdown()
    made.replay.close()


def test_a_signed_request_is_carried_out(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "call", lambda *asked: Answer(200, {"asked": [str(asked[0]), asked[1]]}))
    setting.send(ready=True)
    assert setting.call() == (200, b'{"asked":["GET","/v1/health"]}')
    assert setting.ready == [True]
    assert setting.call(signature="0" * 64)[0] == 401


@pytest.mark.parametrize(
    "raw",
    [
        LENGTHS.pack(60_000, 0) + b"[" * 60_000,
        LENGTHS.pack(1 << 30, 0),
        LENGTHS.pack(4, 0) + b"null",
        LENGTHS.pack(13, 0) + b'{"ready":1.5}',
    ],
    ids=["too deep", "too long", "no object", "not ready"],
)
def test_what_is_no_frame_ends_the_serving(setting: Setting, raw: bytes) -> None:
    setting.channel.sendall(raw)
    assert setting.serves_no_more()
    assert setting.ready == []


@pytest.mark.parametrize("fields", [{"ready": True}, {"id": [1]}, {"id": True}, {}])
def test_ready_is_said_once_and_every_call_has_a_number(setting: Setting, fields: dict[str, Any]) -> None:
    setting.send(ready=True)
    setting.send(**fields)
    assert setting.serves_no_more()
    assert setting.ready == [True]


def test_when_no_thread_can_be_had_the_serving_ends(setting: Setting) -> None:
    setting.send(ready=True)
    setting.pool.shutdown()  # it raises RuntimeError, as it does when the system has no thread left
    setting.send(id=1)
    assert setting.serves_no_more()


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "GET\ud800"},
        {"method": "G" * 17},
        {"path": "/\ud800"},
        {"path": "/\n"},
        {"path": "/" * 2049},
        {"path": None},
        {"signature": ["x"]},
    ],
)
def test_what_no_front_would_say_is_no_request(setting: Setting, fields: dict[str, Any]) -> None:
    setting.send(ready=True)
    assert setting.call(**fields) == (400, b'{"error":"the request is none"}')


@pytest.mark.parametrize(
    "fault", [ValueError("hidden"), MemoryError("hidden"), RecursionError("hidden"), OSError("hidden"), None]
)
def test_whatever_goes_wrong_is_answered_without_details(
    fault: Exception | None, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_asked: Any) -> Answer:
        if fault is None:
            return Answer(200, {"hidden": object()})  # what JSON cannot hold
        raise fault

    monkeypatch.setattr(module, "call", call)
    setting.send(ready=True)
    assert setting.call() == (500, b'{"error": "the agent has an error; its journal says more"}')


def test_an_answer_that_cannot_be_sent_lets_nobody_wait(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "call", lambda *_asked: Answer(200, {}, {"X": "x" * (1 << 17)}))
    setting.send(ready=True)
    with pytest.raises(EOFError):
        setting.call()
    assert setting.serves_no_more()


def test_an_answer_that_is_too_long_is_told(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_ANSWER", 100)
    monkeypatch.setattr(module, "call", lambda *_asked: Answer(200, {"long": "x" * 100}))
    setting.send(ready=True)
    assert setting.call() == (500, b'{"error": "the answer is too long"}')


def test_what_cannot_be_remembered_is_not_carried_out(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def call(*what: Any) -> Answer:
        asked.append(what[1])
        return Answer(200, {})

    monkeypatch.setattr(module, "call", call)
    monkeypatch.setattr(replay, "MOST_REMEMBERED", 0)
    setting.send(ready=True)
    status, body = setting.call()
    assert (status, asked) == (503, [])
    assert body == b'{"error":"the request could not be remembered, and so not carried out"}'
    assert "more than 0 requests within 600 s" in capsys.readouterr().err


def test_a_node_without_tools_says_what_to_install(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))
    setting.send(ready=True)
    status, body = setting.call()
    assert (status, b"wg is not on this node: install wireguard-tools" in body) == (500, True)


def test_what_was_asked_for_is_done_though_the_front_has_ended(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def call(*_asked: Any) -> Answer:
        begun.set()
        assert go_on.wait(20)
        return Answer(200, {})

    monkeypatch.setattr(module, "call", call)
    setting.send(ready=True)
    now = str(int(time.time()))
    path = "/v1/health"
    setting.send(id=1, method="GET", path=path, timestamp=now, signature=sign(SECRET, "GET", path, b"", now))
    assert begun.wait(20)
    setting.channel.close()
    assert setting.serves_no_more()
    go_on.set()
    setting.pool.shutdown()
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[1:4] for line in told] == [["'GET'", "'/v1/health'", "200"]]


def test_a_channel_that_is_closed_already_has_ended(setting: Setting) -> None:
    setting.send(ready=True)
    while not setting.ready:
        time.sleep(0.01)
    channel = setting.back._channel
    setting.channel.close()
    assert setting.serves_no_more()
    channel.close()
    setting.back.serve(lambda: pytest.fail("it is not ready"))
