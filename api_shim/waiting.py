"""Requests that wait for their operations: one look into the registry for all of them, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import anyio.to_thread
import structlog
from sqlalchemy import and_, or_, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation

#: Seconds between two looks, for what another replica carries out.
_POLL = 0.5
_CHUNK = 500
FINAL = ("succeeded", "failed", "canceled")

log = structlog.stdlib.get_logger("api_shim")


class Waiting:
    """Who waits for which operation. All of it happens in the event loop, but for `notify`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiters: dict[str, list[asyncio.Event]] = {}
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin to look."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Let nobody wait any more."""
        self.release()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def release(self) -> None:
        """Let all that wait, and all that will, go on without an answer: the server is about to stop."""
        self._closed = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()

    def notify(self) -> None:
        """Look now: operations may have ended. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def until_ended(self, number: str, seconds: float) -> None:
        """Wait until an operation has a result, or is canceled, or the time is up."""
        if seconds <= 0 or self._closed:
            return
        waiter = asyncio.Event()
        self._waiters.setdefault(number, []).append(waiter)
        self._woken.set()
        try:
            async with asyncio.timeout(seconds):
                await waiter.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters[number].remove(waiter)
            if not self._waiters[number]:
                del self._waiters[number]

    async def _look(self) -> None:
        while True:
            if not self._waiters:
                await self._woken.wait()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await self._woken.wait()
            self._woken.clear()
            numbers = list(self._waiters)
            try:
                ended = await anyio.to_thread.run_sync(self._ended, numbers)
            except RegistryError as error:
                log.warning("nobody can be told of ended operations", reason=str(error))
                await asyncio.sleep(_POLL)
                continue
            except Exception:
                # Whatever it is: without this task nobody would be told of anything any more.
                log.exception("nobody can be told of ended operations")
                await asyncio.sleep(_POLL)
                continue
            for number in ended:
                for waiter in self._waiters.get(number, ()):
                    waiter.set()

    def _ended(self, numbers: Sequence[str]) -> list[str]:
        found: list[str] = []
        with self._registry.read() as session:
            for start in range(0, len(numbers), _CHUNK):
                found += session.scalars(
                    select(Operation.id).where(
                        Operation.id.in_(numbers[start : start + _CHUNK]),
                        or_(
                            Operation.state.in_(FINAL),
                            # Tried, and to be tried again: that is an answer.
                            and_(Operation.state == "pending", Operation.result.is_not(None)),
                        ),
                    )
                )
        return found


def is_answered(operation: Operation) -> bool:
    """Whether there is something to tell a caller who waits."""
    return operation.state in FINAL or (operation.state == "pending" and operation.result is not None)
