"""Requests on their way through the front and answers on their way back, and what goes no further."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from tests.unit.plugins.module_utils.agent.played_front import Setting, all_of, gone, played, request


def test_a_request_goes_on_as_it_came_and_its_answer_back() -> None:
    async def scenario(setting: Setting) -> None:
        reader, _writer = await setting.connect(request(b"\0\xff|body", path="/a?b=%7C"))
        fields, body = await setting.take()
        assert body == b"\0\xff|body"
        assert (fields["method"], fields["path"], fields["peer"]) == ("POST", "/a?b=%7C", "127.0.0.1")
        setting.reply(fields["id"], b'{"x":1}')
        assert (await reader.readuntil(b'{"x":1}')).startswith(b"HTTP/1.1 200 OK\r\n")

    played(scenario)


@pytest.mark.parametrize("what", ["nothing", "half a head", "half a body"])
def test_who_is_too_slow_is_sent_away(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {"nothing": b"", "half a head": b"GET / HT", "half a body": request(b"abc", 5)}[what]
    monkeypatch.setattr(
        limits, "HEAD_SECONDS", 2.0
    )  # within which the front has to come to read what there is
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)

    async def scenario(setting: Setting) -> None:
        reader, _writer = await setting.connect(sent)
        answer = await all_of(reader)
        assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""

    played(scenario)


def test_a_head_that_drips_is_not_slow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)

    async def scenario(setting: Setting) -> None:
        reader, writer = await setting.connect(b"GET / HTTP/1.1\r\n")
        answer = asyncio.ensure_future(all_of(reader))
        while not answer.done():
            try:
                writer.write(b"A: 1\r\n")
                await writer.drain()
            except OSError:
                break
            await asyncio.sleep(0.05)
        assert (await answer).startswith(b"HTTP/1.1 408 ")

    played(scenario)


@pytest.mark.parametrize(
    "data",
    [
        lambda: request(when=int(time.time()) - 1000),
        lambda: request(path="/a|b"),
        lambda: request().replace(b"a" * 64, b"A" * 64),
        lambda: b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["stale", "a bar in the path", "capitals", "unsigned"],
)
def test_what_cannot_be_signed_rightly_goes_no_further(data: Callable[[], bytes]) -> None:
    async def scenario(setting: Setting) -> None:
        reader, _writer = await setting.connect(data())
        assert (await all_of(reader)).startswith(b"HTTP/1.1 401 ")
        other, _writer = await setting.connect(request())
        assert (await setting.take())[0]["id"] == 1
        setting.reply(1)
        assert await other.readuntil(b"{}")

    played(scenario)


def test_a_body_is_asked_for_where_that_is_waited_for() -> None:
    async def scenario(setting: Setting) -> None:
        head = request(length=3).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        reader, writer = await setting.connect(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await setting.take())[1] == b"abc"

    played(scenario)


def test_what_cannot_be_accepted_now_may_be_later(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(setting: Setting) -> None:
        with socket.socket() as late:
            late.bind(("127.0.0.1", 0))
            late.setblocking(False)
            listening = asyncio.ensure_future(setting.front.listen(late, None))
            told = ""
            while not told:
                await asyncio.sleep(0.01)
                told = capsys.readouterr().err
            assert told == "a connection could not be accepted: Invalid argument\n"
            late.listen()
            await setting.connect(request(), port=late.getsockname()[1])
            assert (await setting.take())[0]["peer"] == "127.0.0.1"
            listening.cancel()

    played(scenario)


def test_what_comes_behind_a_request_waits_for_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_HEAD", 1000)

    async def scenario(setting: Setting) -> None:
        reader, writer = await setting.connect(request(b"a"))
        first = (await setting.take())[0]["id"]
        (connection,) = setting.front.connections
        second = request(b"b" * 5000, path="/second")
        for part in (second[:10], second[10:]):
            writer.write(part)
            while not connection._data.endswith(part):
                await asyncio.sleep(0.01)
        assert not connection._transport.is_reading()  # not without end
        setting.reply(first)
        fields, body = await setting.take()
        assert (fields["path"], body) == ("/second", b"b" * 5000)
        setting.reply(fields["id"])
        for _ in range(2):
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    played(scenario)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"A: " + b"a" * 2000, 431, "the headers are too long"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 2000 + b"\r\n\r\n", 431, "the headers are too long"),
        (b"\x16\x03\x01\r\n\r\n", 400, None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, None),
    ],
)
def test_what_is_no_head_is_refused_and_what_follows_passed_over(
    data: bytes, status: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LONGEST_HEAD", 1000)

    async def scenario(setting: Setting) -> None:
        reader, writer = await setting.connect(data)
        answer = await all_of(reader)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        if message is not None:
            assert answer.endswith(json.dumps({"error": message}).encode())
        writer.write(request())
        writer.close()
        await gone(setting)
        # Of what came behind it, nothing has reached the privileged process.
        await setting.connect(request(path="/other"))
        assert (await setting.take())[0]["path"] == "/other"

    played(scenario)


def test_to_one_that_was_ended_nothing_is_written() -> None:
    async def scenario(setting: Setting) -> None:
        reader, _writer = await setting.connect(request())
        await setting.take()
        (connection,) = setting.front.connections
        connection.abort()
        connection.answer(200, b"{}", {})
        with suppress(ConnectionError):
            assert await all_of(reader) == b""
        with pytest.raises(ValueError, match="there is no request"):
            connection.request()

    played(scenario)
