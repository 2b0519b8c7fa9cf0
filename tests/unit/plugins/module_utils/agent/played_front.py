"""A front with real connections, and a privileged process that the test plays."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import (
    LENGTHS,
    fields_of,
    frame_head,
    lengths,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front import Front

Scenario = Callable[["Setting"], Awaitable[None]]
AT_ONCE = struct.pack("ii", 1, 0)


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
        port, tls_port = (listener.getsockname()[1] for listener in listeners)
        setting = Setting(front, port, tls_port, reader, writer)
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
