# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that faces the network: who may connect, and what is handed on. It has no rights and no secret.

Started by the privileged process (see supervisor), which hands it the listening socket, the channel, and the
certificate with its key, each as a descriptor. When its standard input ends, it takes no more requests, hands over the
answers to those it has, and ends; when the channel ends, it ends at once.
"""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import socket
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Set, Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.clients import client_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.connection import Connection
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import (
    LENGTHS,
    BrokenFrame,
    fields_of,
    frame_head,
    lengths,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.privileges import CannotDrop, drop


@dataclass(frozen=True)
class Handshake:
    """A connection that is not ready yet: whom it counts for, since when, and how it is ended."""

    client: str
    since: float
    abort: Callable[[], None]


class Front:
    """All connections, and the channel to the privileged process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most_connections: int) -> None:
        self.loop = loop
        self.connections: Set[Connection] = set()
        self.draining = False
        self._most_connections = most_connections
        self._handshakes: Dict[asyncio.Task[Any], Handshake] = {}
        self._calls: Dict[int, Connection] = {}
        self._lengths: Dict[int, int] = {}  # of the bodies of these calls; their clients may be gone
        self._queue: List[Connection] = []
        self._number = 0
        self._writer: Optional[asyncio.StreamWriter] = None
        self.ended = loop.create_future()

    # -- the channel

    async def open_channel(self, channel: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=channel, limit=1 << 20)
        self._writer.write(frame_head({"ready": True}, 0))
        self._answers = self.loop.create_task(self._take_answers(reader))

    async def _take_answers(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                fields, raw = lengths(await reader.readexactly(LENGTHS.size), limits.LONGEST_ANSWER)
                said = fields_of(await reader.readexactly(fields))
                body = await reader.readexactly(raw)
                connection = self._calls.pop(int(said["id"]), None)
                self._lengths.pop(int(said["id"]), None)
                if connection is not None:
                    connection.answer(int(said["status"]), body, dict(said["headers"]))
                self._next_call()
        except (asyncio.IncompleteReadError, OSError, BrokenFrame, KeyError, TypeError, ValueError):
            pass
        finally:
            self.end()

    def submit(self, connection: Connection) -> None:
        """Have the request of a connection carried out, now or when it is its turn."""
        of_its_client = sum(other.client == connection.client for other in self._queue)
        if len(self._queue) >= limits.MOST_WAITING or of_its_client >= max(1, limits.MOST_WAITING // 2):
            connection.refuse(503, "too many calls are waiting", {"Retry-After": "5"})
            return
        self._queue.append(connection)
        self._next_call()

    def _next_call(self) -> None:
        while self._queue and len(self._calls) < limits.MOST_CALLS and self._writer is not None:
            connection = self._queue[0]
            if sum(self._lengths.values()) + connection.buffered() > limits.MOST_BUFFERED:
                return
            del self._queue[0]
            if not connection.waits():
                continue  # its client has gone, and nothing was begun
            self._number += 1
            self._calls[self._number] = connection
            fields, body = connection.request()
            self._lengths[self._number] = len(body)
            self._writer.write(frame_head({"id": self._number, **fields}, len(body)))
            self._writer.write(body)

    # -- the network

    async def listen(self, listener: socket.socket, context: Optional[ssl.SSLContext]) -> None:
        """Accept connections until the front is to drain."""
        while not self.draining:
            try:
                accepted, address = await self.loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors or memory: the connections that are there go on, and leave some.
                tell(f"a connection could not be accepted: {error.strerror}")
                await asyncio.sleep(0.1)
                continue
            self._make_room()
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self.loop.create_task(self._greet(accepted, context))
            self._handshakes[task] = Handshake(
                client_of(address), self.loop.time(), functools.partial(self._give_up, task)
            )
            task.add_done_callback(self._greeted)
            await asyncio.sleep(0)  # a crowd at the door keeps nobody inside from going on

    async def _greet(self, accepted: socket.socket, context: Optional[ssl.SSLContext]) -> None:
        timeout = limits.HANDSHAKE_SECONDS if context else None
        await self.loop.connect_accepted_socket(
            lambda: Connection(self), accepted, ssl=context, ssl_handshake_timeout=timeout
        )

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._handshakes.pop(task, None)  # it does not count any more, however long its end takes
        task.cancel()

    def _greeted(self, task: asyncio.Task[Any]) -> None:
        self._handshakes.pop(task, None)
        if not task.cancelled():
            task.exception()  # of a client that speaks no TLS, or none in time: its connection is closed by now

    def _make_room(self) -> None:
        """Close what has been the longest without a whole request, when there are too many connections: of clients that
        hold more than their share, if there are such, so that one of them cannot keep the others out."""
        if len(self.connections) + len(self._handshakes) < self._most_connections:
            return
        open_ones: List[Union[Connection, Handshake]] = [*self.connections, *self._handshakes.values()]
        held = Counter(one.client for one in open_ones)
        share = max(1, self._most_connections // limits.SHARE)
        idle = [one for one in open_ones if isinstance(one, Handshake) or not one.waits()]
        if idle:
            min(idle, key=lambda one: (held[one.client] <= share, one.since)).abort()

    def make_room_for_body(self, mine: Connection) -> None:
        """Close those whose bodies come too slowly, the slowest first, when all bodies together are too long. None
        that keeps its rate has to go for another one, but for those of the client that has the most."""
        while sum(connection.buffered() for connection in self.connections) > limits.MOST_BUFFERED:
            now = self.loop.time()
            held: Dict[str, int] = {}
            for connection in self.connections:
                held[connection.client] = held.get(connection.client, 0) + connection.buffered()
            most = max(held.values())
            others = [
                one for one in self.connections if one is not mine and one.buffered() and not one.waits()
            ]
            going = [one for one in others if not one.keeps_rate(now)] or [
                one for one in others if held[one.client] == most > held[mine.client]
            ]
            if not going:
                mine.refuse(503, "too many long requests at once", {"Retry-After": "5"})
                return
            min(going, key=lambda connection: connection.due).abort()

    # -- the end

    def drain(self) -> None:
        """Take no more requests; end when those that are there are answered."""
        self.draining = True
        for handshake in list(self._handshakes.values()):
            handshake.abort()
        for connection in list(self.connections):
            if not connection.waits():
                connection.close()
        if not self.connections:
            self.end()
        else:
            self.loop.call_later(0.05, self._look_again, None)

    def _look_again(self, deadline: Optional[float]) -> None:
        now = self.loop.time()
        busy = [connection for connection in self.connections if connection.waits()]
        if not busy and deadline is None:
            deadline = now + limits.DRAIN_SECONDS
        if not self.connections or (deadline is not None and now > deadline):
            self.end()
        else:
            self.loop.call_later(0.05, self._look_again, deadline)

    def end(self) -> None:
        """Be done, whatever is still under way."""
        if not self.ended.done():
            self.ended.set_result(None)


def tls_context(certificate: int, key: int) -> ssl.SSLContext:
    """A server's context out of two open files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could have the front do nothing but handshakes, within one connection that never is idle.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(f"/proc/self/fd/{certificate}", f"/proc/self/fd/{key}")
    return context


async def _serve(listener: socket.socket, channel: socket.socket, context: Optional[ssl.SSLContext]) -> None:
    loop = asyncio.get_running_loop()
    descriptors, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    front = Front(loop, min(limits.MOST_CONNECTIONS, max(16, descriptors - 64)))
    await front.open_channel(channel)
    listening = loop.create_task(front.listen(listener, context))

    def no_more_listening(task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            tell(f"the front cannot listen any more: {type(problem).__name__}")
            front.end()

    listening.add_done_callback(no_more_listening)

    def stop() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            listening.cancel()
            front.drain()

    loop.add_reader(0, stop)
    await front.ended


def main(arguments: List[str]) -> int:
    """Run with the user to become, and the descriptors of the listener, the channel, the certificate and its key (-1:
    plain HTTP)."""
    user, numbers = arguments[0], [int(text) for text in arguments[1:5]]
    listener, channel = socket.socket(fileno=numbers[0]), socket.socket(fileno=numbers[1])
    try:
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), min(hard, 4096)))
        # The key is read before the rights are gone.
        context = tls_context(numbers[2], numbers[3]) if numbers[2] >= 0 else None
        for descriptor in numbers[2:4]:
            if descriptor >= 0:
                os.close(descriptor)
        drop(user)
    except (CannotDrop, OSError, ValueError) as error:
        tell(f"the front cannot start: {error}")
        return 2
    listener.setblocking(False)
    channel.setblocking(False)
    asyncio.run(_serve(listener, channel, context))
    return 0
