"""The front's limits, with real connections and a privileged process that the test plays."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.clients import client_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import (
    LENGTHS,
    fields_of,
    frame_head,
    lengths,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front import Front, tls_context

Scenario = Callable[["Setting"], Awaitable[None]]


class Setting:
    """A front that listens, and the other end of its channel."""

    def __init__(
        self,
        front: Front,
        port: int,
        tls_port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.front, self.port, self.tls_port, self.reader, self.writer = front, port, tls_port, reader, writer
        self.clients: list[asyncio.StreamWriter] = []

    async def take(self) -> tuple[dict[str, Any], bytes]:
        """The next request that reaches the privileged process."""
        fields, raw = lengths(await asyncio.wait_for(self.reader.readexactly(LENGTHS.size), 10), 1 << 30)
        return fields_of(await self.reader.readexactly(fields)), await self.reader.readexactly(raw)

    def reply(self, number: int, body: bytes = b"{}") -> None:
        self.writer.write(frame_head({"id": number, "status": 200, "headers": {}}, len(body)) + body)

    async def connect(
        self, data: bytes = b"", source: str = "127.0.0.1", port: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port, local_addr=(source, 0))
        writer.write(data)
        self.clients.append(writer)  # or it would be closed when nobody holds it
        return reader, writer


def played(scenario: Scenario, most_connections: int = 100) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for listener in listeners:
            listener.setblocking(False)
        front = Front(loop, most_connections)
        theirs.setblocking(False)
        await front.open_channel(theirs)
        # Without a certificate no handshake is completed; none that is begun here has to be.
        contexts = (None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        listening = [loop.create_task(front.listen(*pair)) for pair in zip(listeners, contexts, strict=True)]
        reader, writer = await asyncio.open_connection(sock=ours)
        ports = [listener.getsockname()[1] for listener in listeners]
        setting = Setting(front, *ports, reader, writer)
        assert (await setting.take())[0] == {"ready": True}
        try:
            await asyncio.wait_for(scenario(setting), 60)
        finally:
            for task, listener in zip(listening, listeners, strict=True):
                task.cancel()
                listener.close()
            writer.close()

    asyncio.run(play())


def request(
    body: bytes = b"", length: int | None = None, path: str = "/v1/health", when: int | None = None
) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Content-Length: {len(body) if length is None else length}",
        f"X-Signature: {'a' * 64}",
        f"X-Timestamp: {int(time.time()) if when is None else when}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def all_of(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 20)


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


def test_new_clients_are_let_in_for_those_that_say_nothing() -> None:
    async def scenario(setting: Setting) -> None:
        silent = [await setting.connect() for _ in range(12)]
        reader, _writer = await setting.connect(request())
        fields, _body = await setting.take()
        setting.reply(fields["id"])
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        ended = [reader for reader, _writer in silent if reader.at_eof() or reader.exception()]
        assert len(ended) >= 5

    played(scenario, most_connections=8)


def test_who_holds_more_than_a_share_makes_room_first() -> None:
    async def scenario(setting: Setting) -> None:
        _reader, writer = await setting.connect(source="127.0.0.2")
        crowd = [await setting.connect(port=setting.tls_port) for _ in range(6)]
        crowd += [await setting.connect() for _ in range(12)]
        writer.write(request())
        assert (await setting.take())[0]["peer"] == "127.0.0.2"
        # Of the crowd, the ones that came first had to go.
        assert [await all_of(reader) for reader, _writer in crowd[:11]] == [b""] * 11
        assert not crowd[-1][0].at_eof()

    played(scenario, most_connections=8)


def test_handshakes_and_idle_connections_go_by_one_clock() -> None:
    async def scenario(setting: Setting) -> None:
        idle, _writer = await setting.connect()
        while not setting.front.connections:
            await asyncio.sleep(0.01)
        silent, _writer = await setting.connect(port=setting.tls_port)
        third, _writer = await setting.connect(request())
        assert await all_of(idle) == b""
        setting.reply((await setting.take())[0]["id"])
        await third.readuntil(b"{}")
        assert not silent.at_eof()
        fourth, _writer = await setting.connect(request())
        assert await all_of(silent) == b""
        setting.reply((await setting.take())[0]["id"])
        await fourth.readuntil(b"{}")
        assert not third.at_eof()

    played(scenario, most_connections=2)


def test_one_client_is_one_address_or_one_network_of_ipv6() -> None:
    assert client_of(("192.0.2.1", 5)) == client_of(("::ffff:192.0.2.1", 5, 0, 0)) == "192.0.2.1"
    assert client_of(("2001:db8::1", 5, 0, 0)) == client_of(("2001:db8::ffff:0:0:1", 7, 0, 0))
    assert client_of(("2001:db8::1", 5, 0, 0)) != client_of(("2001:db8:0:1::1", 5, 0, 0))
    assert client_of(("fe80::1%eth0", 5, 0, 2)) == "fe80::/64"
    assert client_of(None) == ""


def test_long_bodies_make_room_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUFFERED", 2500)
    monkeypatch.setattr(limits, "STALL_SECONDS", 0.0)

    async def scenario(setting: Setting) -> None:
        first, _ = await setting.connect(request(b"x", 1000))
        await setting.connect(request(b"x", 1000))
        third, _ = await setting.connect(request(b"y" * 1000))
        fields, body = await setting.take()
        assert body == b"y" * 1000
        setting.reply(fields["id"])
        assert (await third.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        with pytest.raises((ConnectionError, AssertionError)):
            assert await all_of(first)

    played(scenario)


def test_a_length_that_is_only_said_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUFFERED", 2500)
    monkeypatch.setattr(limits, "RESERVED", 10)

    async def scenario(setting: Setting) -> None:
        honest, writer = await setting.connect(request(b"y" * 500, 1000))
        silent = [await setting.connect(request(length=2500)) for _ in range(4)]
        while sum(connection.buffered() > 0 for connection in setting.front.connections) < 5:
            await asyncio.sleep(0.01)
        writer.write(b"z" * 500)
        fields, body = await setting.take()
        assert body == b"y" * 500 + b"z" * 500
        setting.reply(fields["id"])
        assert (await honest.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        assert not any(reader.at_eof() for reader, _writer in silent)

    played(scenario)


def test_who_keeps_the_rate_goes_for_nobody_and_who_rests_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUFFERED", 2500)
    monkeypatch.setattr(limits, "RESERVED", 10)

    async def scenario(setting: Setting) -> None:
        first, writer = await setting.connect(request(b"x" * 1500, 1600))
        while not any(connection.buffered() == 1500 for connection in setting.front.connections):
            await asyncio.sleep(0.01)
        second, _writer = await setting.connect(request(b"y" * 1500))
        assert (await all_of(second)).startswith(b"HTTP/1.1 503 ")
        # As if it had rested for too long by now.
        (resting,) = (one for one in setting.front.connections if one.buffered())
        resting.due = setting.front.loop.time() - 1
        third, _writer = await setting.connect(request(b"z" * 1500))
        assert (await setting.take())[1] == b"z" * 1500
        with pytest.raises((ConnectionError, AssertionError)):
            assert await all_of(first)
        assert not third.at_eof()
        writer.close()

    played(scenario)


def test_who_has_the_most_makes_room_for_a_body_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUFFERED", 2500)
    monkeypatch.setattr(limits, "RESERVED", 10)

    async def scenario(setting: Setting) -> None:
        for _ in range(2):
            await setting.connect(request(b"x" * 1100, 1200))
        while sum(connection.buffered() for connection in setting.front.connections) < 2200:
            await asyncio.sleep(0.01)
        await setting.connect(request(b"y" * 1200), source="127.0.0.2")
        assert (await setting.take())[1] == b"y" * 1200
        assert sum(connection.buffered() for connection in setting.front.connections) == 2300

    played(scenario)


def test_when_too_many_wait_further_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CALLS", 2)
    monkeypatch.setattr(limits, "MOST_WAITING", 1)

    async def scenario(setting: Setting) -> None:
        first = [await setting.connect(request()) for _ in range(2)]
        taken = [(await setting.take())[0]["id"] for _ in first]
        waiting, _ = await setting.connect(request())
        while sum(connection.waits() for connection in setting.front.connections) < 3:
            await asyncio.sleep(0.01)
        refused, _ = await setting.connect(request())
        answer = await all_of(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5\r\n" in answer
        setting.reply(taken[0])
        fields, _body = await setting.take()
        setting.reply(fields["id"])
        assert (await waiting.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

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


def test_one_client_fills_half_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CALLS", 1)
    monkeypatch.setattr(limits, "MOST_WAITING", 4)

    async def scenario(setting: Setting) -> None:
        crowd = [await setting.connect(request()) for _ in range(6)]
        first = (await setting.take())[0]["id"]
        while sum(connection.waits() for connection in setting.front.connections) < 3:
            await asyncio.sleep(0.01)
        refused, _others = await asyncio.wait(
            [asyncio.ensure_future(all_of(reader)) for reader, _writer in crowd],
            timeout=20,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert refused
        assert all(one.result().startswith(b"HTTP/1.1 503 ") for one in refused)
        other, _writer = await setting.connect(request(), source="127.0.0.2")
        for number in range(first, first + 4):
            setting.reply(number)
        assert (await other.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    played(scenario)


def test_a_body_is_asked_for_where_that_is_waited_for() -> None:
    async def scenario(setting: Setting) -> None:
        head = request(length=3).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        reader, writer = await setting.connect(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await setting.take())[1] == b"abc"

    played(scenario)


def test_when_it_drains_those_that_wait_get_their_answers() -> None:
    async def scenario(setting: Setting) -> None:
        waiting, _ = await setting.connect(request())
        idle, _ = await setting.connect()
        fields, _body = await setting.take()
        while len(setting.front.connections) < 2:
            await asyncio.sleep(0.01)
        setting.front.drain()
        assert await all_of(idle) == b""
        assert not setting.front.ended.done()
        setting.reply(fields["id"])
        assert (await waiting.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        await asyncio.wait_for(setting.front.ended, 20)

    played(scenario)


def test_when_the_channel_ends_so_does_the_front() -> None:
    async def scenario(setting: Setting) -> None:
        setting.writer.close()
        await asyncio.wait_for(setting.front.ended, 10)

    played(scenario)


def test_an_answer_that_is_no_frame_ends_it() -> None:
    async def scenario(setting: Setting) -> None:
        setting.writer.write(b"\xff" * 100)
        await asyncio.wait_for(setting.front.ended, 10)

    played(scenario)


AT_ONCE = struct.pack("ii", 1, 0)


def reset(client: asyncio.StreamWriter) -> None:
    """End the connection as one does who takes no answer any more."""
    client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    client.transport.abort()


async def gone(setting: Setting) -> None:
    while setting.front.connections:
        await asyncio.sleep(0.01)


async def waiting(setting: Setting, number: int) -> None:
    """Until so many have whole requests."""
    while sum(connection.waits() for connection in setting.front.connections) != number:
        await asyncio.sleep(0.01)


def test_who_leaves_the_queue_is_not_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CALLS", 1)

    async def scenario(setting: Setting) -> None:
        first, _writer = await setting.connect(request())
        number = (await setting.take())[0]["id"]
        _reader, left = await setting.connect(request(path="/left"))
        await waiting(setting, 2)
        reset(left)
        await waiting(setting, 1)
        third, _writer = await setting.connect(request(path="/third"))
        await waiting(setting, 2)
        setting.reply(number)
        fields, _body = await setting.take()
        assert fields["path"] == "/third"
        setting.reply(fields["id"])
        for reader in (first, third):
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    played(scenario)


def test_the_body_of_who_has_left_takes_its_room_until_it_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MOST_BUFFERED", 2500)

    async def scenario(setting: Setting) -> None:
        _reader, left = await setting.connect(request(b"x" * 2000))
        number = (await setting.take())[0]["id"]
        reset(left)
        await gone(setting)
        second, _writer = await setting.connect(request(b"y" * 2000))
        await waiting(setting, 1)
        assert len(setting.front._queue) == 1
        setting.reply(99)  # an answer to nobody makes no room
        setting.reply(number)  # nor has this one anybody who would take it
        fields, body = await setting.take()
        assert body == b"y" * 2000
        setting.reply(fields["id"])
        assert (await second.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    played(scenario)


def test_who_waits_for_an_answer_makes_room_for_nobody() -> None:
    async def scenario(setting: Setting) -> None:
        first, _writer = await setting.connect(request())
        taken = [(await setting.take())[0]["id"]]
        second, _writer = await setting.connect(request())
        taken.append((await setting.take())[0]["id"])
        for number in taken:
            setting.reply(number)
        for reader in (first, second):
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    played(scenario, most_connections=1)


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


def test_who_comes_while_it_drains_is_sent_away() -> None:
    async def scenario(setting: Setting) -> None:
        await setting.connect(request())
        await setting.take()
        silent, _writer = await setting.connect(port=setting.tls_port)
        while not setting.front._handshakes:
            await asyncio.sleep(0.01)
        setting.front.drain()
        late, _writer = await setting.connect()
        assert await all_of(late) == b""
        with suppress(ConnectionError):
            assert await all_of(silent) == b""

    played(scenario)


def test_when_nobody_is_there_it_has_drained_at_once() -> None:
    async def scenario(setting: Setting) -> None:
        setting.front.drain()
        assert setting.front.ended.done()
        setting.front.end()  # a second time does no harm

    played(scenario)


def test_who_has_gone_before_it_is_closed_is_closed_all_the_same() -> None:
    async def scenario(setting: Setting) -> None:
        with socket.create_connection(("127.0.0.1", setting.port)) as client:
            while not setting.front.connections:
                await asyncio.sleep(0.01)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        # It has been reset, of which nobody was told yet.
        (connection,) = setting.front.connections
        setting.front.drain()
        assert not setting.front.connections
        assert setting.front.ended.done()
        assert connection.buffered() == 0

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


def test_no_connection_shakes_hands_twice(tmp_path: Path) -> None:
    pair = [tmp_path / "certificate.pem", tmp_path / "key.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=node", "-out", pair[0], "-keyout", pair[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    with pair[0].open("rb") as certificate, pair[1].open("rb") as key:
        context = tls_context(certificate.fileno(), key.fileno())
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
