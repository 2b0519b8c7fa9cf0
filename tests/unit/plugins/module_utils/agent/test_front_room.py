"""Who has to go, or to wait, when there is no more room: for connections, for bodies, in the queue."""

from __future__ import annotations

import asyncio

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from tests.unit.plugins.module_utils.agent.played_front import (
    Setting,
    all_of,
    gone,
    played,
    request,
    reset,
    waiting,
)


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
