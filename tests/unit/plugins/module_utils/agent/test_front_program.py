"""The front as a program: what it is started with, how it serves and ends, and with which words it does not start."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import receive, send
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front import _serve, main, tls_context
from tests.self_signed import Identity
from tests.unit.plugins.module_utils.agent.user_namespace import USER, ended, forked_as_root

REQUEST = b"POST /v1/health HTTP/1.1\r\nContent-Length: 3\r\nX-Signature: %s\r\nX-Timestamp: %d\r\n\r\nabc"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """With its key."""
    Identity(tmp_path, "node")
    return tmp_path / "node.pem"


class Program:
    """A front in a process of its own, and what its parent holds."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.channel, self._theirs = socket.socketpair()
        self.channel.settimeout(20)
        self._read, self.stdin = os.pipe()
        self._told = folder / "told"
        self._process = 0

    def start(self, work: Callable[[socket.socket, socket.socket], int]) -> None:
        """It has the listener and its end of the channel."""
        with self._told.open("w") as told:
            self._process = forked_as_root(
                lambda: work(self.listener, self._theirs),
                [self.channel.fileno(), self.stdin],
                self._read,
                told.fileno(),
            )
        self._theirs.close()
        os.close(self._read)

    def run(self, certificate: int = -1, key: int = -1, user: str = USER) -> None:
        def work(listener: socket.socket, theirs: socket.socket) -> int:
            return main([user, *map(str, (listener.detach(), theirs.detach(), certificate, key))])

        self.start(work)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=20)

    def drain(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit code and what it has told."""
        process, self._process = self._process, 0
        return ended(process), self._told.read_text()

    def close(self) -> None:
        self.channel.close()  # whereupon it ends
        if self._process:
            ended(self._process)
        self.listener.close()
        if self.stdin >= 0:
            os.close(self.stdin)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    made.close()


def served(program: Program, client: socket.socket) -> None:
    """One request goes through."""
    client.sendall(REQUEST % (b"a" * 64, int(time.time())))
    fields, body = receive(program.channel, 100)
    assert (fields["path"], fields["peer"], bytes(body)) == ("/v1/health", "127.0.0.1", b"abc")
    send(program.channel, {"id": fields["id"], "status": 200, "headers": {}}, b"{}")
    found = b""
    while not found.endswith(b"{}"):
        more = client.recv(1000)
        assert more, found
        found += more
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")


def test_it_serves_until_its_standard_input_ends(program: Program) -> None:
    program.run()
    assert receive(program.channel, 0)[0] == {"ready": True}
    os.write(program.stdin, b"what is said there does not matter")
    with program.connect() as client, program.connect() as waiting:
        served(program, client)
        waiting.sendall(REQUEST % (b"b" * 64, int(time.time())))
        fields, _body = receive(program.channel, 100)
        program.drain()
        assert client.recv(1) == b""
        send(program.channel, {"id": fields["id"], "status": 200, "headers": {}}, b"{}")
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        client.close()
        waiting.close()
        assert program.end() == (0, "")


def test_with_a_certificate_it_speaks_tls(program: Program, certificate: Path) -> None:
    opened = os.open(certificate, os.O_RDONLY), os.open(certificate, os.O_RDONLY)
    program.run(*opened)
    for descriptor in opened:
        os.close(descriptor)
    assert receive(program.channel, 0)[0] == {"ready": True}
    with program.connect() as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            assert not plain.recv(1000).startswith(b"HTTP")
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False  # it is known by its certificate
    with context.wrap_socket(program.connect()) as client:
        served(program, client)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")  # not signed: it answers that, and closes
        found = b""
        while more := client.recv(1000):
            found += more
        assert found.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    program.channel.close()
    assert program.end() == (0, "127.0.0.1 401 Unauthorized\n")


def test_no_connection_shakes_hands_twice(certificate: Path) -> None:
    with certificate.open("rb") as opened, certificate.open("rb") as key:
        context = tls_context(opened.fileno(), key.fileno())
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_is_none_is_told(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    descriptor = os.open(tmp_path / "empty", os.O_RDONLY)
    program.run(descriptor, descriptor)
    os.close(descriptor)
    code, told = program.end()
    assert code == 2
    assert told.startswith("the front cannot start: ")
    assert program.channel.recv(1) == b""


def test_without_its_user_it_does_not_start(program: Program) -> None:
    program.run(user="no-such-user")
    assert program.end() == (2, "the front cannot start: there is no user no-such-user\n")


def test_when_it_cannot_listen_any_more_it_ends(program: Program, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as elsewhere:  # where there is no TCP
        elsewhere.bind(str(tmp_path / "socket"))
        elsewhere.listen()
        elsewhere.setblocking(False)

        def work(_listener: socket.socket, theirs: socket.socket) -> int:
            theirs.setblocking(False)
            asyncio.run(_serve(elsewhere, theirs, None))
            return 0

        program.start(work)
        assert receive(program.channel, 0)[0] == {"ready": True}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            assert program.end() == (0, "the front cannot listen any more: OSError\n")
