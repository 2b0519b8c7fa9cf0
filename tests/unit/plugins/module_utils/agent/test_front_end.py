"""A front that is to end, or has lost its channel: who waits is answered, nobody else is let in."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from tests.unit.plugins.module_utils.agent.played_front import (
    AT_ONCE,
    Setting,
    all_of,
    played,
    request,
)


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
