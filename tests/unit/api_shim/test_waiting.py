"""Requests that wait: they are told when their operation has a result, and none waits for longer than it wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation, new_id
from api_shim.waiting import Waiting, is_answered
from tests.postgres.opened import opened

LONG = 20.0


@pytest.fixture
def registry(sqlite_registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    return opened(sqlite_registry_url)


def add(registry: Registry, **fields: Any) -> str:
    number = new_id()
    with registry.write() as session:
        session.add(Operation(id=number, kind="disconnect", **fields))
    return number


def end(registry: Registry, number: str, **fields: Any) -> None:
    with registry.write() as session:
        for name, value in fields.items():
            setattr(session.get_one(Operation, number), name, value)


def waiting(registry: Registry, work: Callable[[Waiting], Awaitable[None]]) -> None:
    async def main() -> None:
        made = Waiting(registry)
        await made.start()
        try:
            await work(made)
        finally:
            await made.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "answered"),
    [
        ({"state": "pending"}, False),
        ({"state": "running"}, False),
        # It was tried before, and is tried again right now: the old result is none.
        ({"state": "running", "result": {"status": "error"}}, False),
        ({"state": "pending", "result": {"status": "error"}}, True),
        ({"state": "succeeded", "result": {"status": "success"}}, True),
        ({"state": "failed", "result": {"status": "error"}}, True),
        ({"state": "canceled"}, True),
    ],
)
def test_what_an_answer_is(registry: Registry, fields: dict[str, Any], answered: bool) -> None:
    number = add(registry, **fields)
    with registry.read() as session:
        assert is_answered(session.get_one(Operation, number)) is answered
    seconds: list[float] = []

    async def work(made: Waiting) -> None:
        began = time.monotonic()
        await made.until_ended(number, LONG if answered else 1.2)
        seconds.append(time.monotonic() - began)

    waiting(registry, work)
    assert (seconds[0] < 1) is answered


def test_who_is_notified_need_not_wait_for_the_next_look(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.waiting._POLL", LONG)
    mine, others = add(registry), add(registry)

    async def work(made: Waiting) -> None:
        first = asyncio.create_task(made.until_ended(mine, LONG))
        second = asyncio.create_task(made.until_ended(mine, LONG))
        other = asyncio.create_task(made.until_ended(others, LONG))
        await asyncio.sleep(0.3)
        end(registry, mine, state="succeeded")
        await asyncio.to_thread(made.notify)
        await asyncio.wait_for(asyncio.gather(first, second), 5)
        assert not other.done()
        other.cancel()

    waiting(registry, work)


def test_what_another_replica_carries_out_is_seen(registry: Registry) -> None:
    number = add(registry)

    async def work(made: Waiting) -> None:
        task = asyncio.create_task(made.until_ended(number, LONG))
        await asyncio.sleep(0.2)
        end(registry, number, state="failed")
        await asyncio.wait_for(task, 5)

    waiting(registry, work)


def test_many_who_wait_cost_one_look(registry: Registry) -> None:
    numbers = [add(registry) for _ in range(3)] + [new_id() for _ in range(1200)]
    looks: list[str] = []

    async def work(made: Waiting) -> None:
        tasks = [asyncio.create_task(made.until_ended(number, 3)) for number in numbers]
        await asyncio.sleep(0.4)
        event.listen(registry.engine, "begin", lambda _connection: looks.append("look"))
        await asyncio.sleep(1.6)
        assert 1 <= len(looks) <= 5
        end(registry, numbers[0], state="succeeded")
        await asyncio.wait_for(tasks[0], 2)
        await asyncio.gather(*tasks)

    waiting(registry, work)


def test_nobody_looks_when_nobody_waits(registry: Registry) -> None:
    looks: list[str] = []
    event.listen(registry.engine, "begin", lambda _connection: looks.append("look"))

    async def work(made: Waiting) -> None:
        await made.until_ended(new_id(), 0)
        await asyncio.sleep(1.2)

    waiting(registry, work)
    assert looks == []


def test_whoever_waits_is_let_go_when_the_server_stops(registry: Registry) -> None:
    number = add(registry)

    async def work(made: Waiting) -> None:
        task = asyncio.create_task(made.until_ended(number, LONG))
        await asyncio.sleep(0.1)
        made.release()
        await asyncio.wait_for(task, 1)
        await asyncio.wait_for(made.until_ended(number, LONG), 1)

    waiting(registry, work)


@pytest.mark.parametrize("error", [NotUsable("the registry cannot be used: it is away"), RuntimeError("oh")])
def test_a_registry_that_comes_back_is_looked_at_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    number, looked = add(registry), Waiting._ended
    failures = [error, error]

    def fail(made: Waiting, numbers: list[str]) -> list[str]:
        if failures:
            raise failures.pop()
        return looked(made, numbers)

    monkeypatch.setattr(Waiting, "_ended", fail)

    async def work(made: Waiting) -> None:
        task = asyncio.create_task(made.until_ended(number, LONG))
        await asyncio.sleep(0.1)
        end(registry, number, state="succeeded")
        await asyncio.wait_for(task, 5)

    waiting(registry, work)
