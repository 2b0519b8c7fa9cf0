"""A server that answers as a test says: what a broken, a foreign or a hostile agent would."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

Reply = Callable[[bytes], "bytes | None"]


class Server:
    """Takes connections one after the other, reads one request from each, and sends what `reply` says."""

    def __init__(self, reply: Reply, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._reply = reply
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                plain, _from = self._listening.accept()
            except OSError:
                return
            try:
                with (
                    self._context.wrap_socket(plain, server_side=True) if self._context else plain
                ) as connection:
                    connection.settimeout(10)
                    request = _whole(connection)
                    if request:
                        self.requests.append(request)
                        answer = self._reply(request)
                        if answer is not None:
                            connection.sendall(answer)
            except OSError:
                continue

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


def _whole(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        more = connection.recv(65536)
        if not more:
            return request
        request += more
    head, _, body = request.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def http(status: int, body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def answering(answer: Any, status: int = 200) -> Reply:
    return lambda _request: http(status, json.dumps(answer).encode())
