# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the agent on a node, over HTTP: to run a module, or how it is.

Each request is signed. What goes wrong is told apart by what may have become of it: not reached or refused, and then
nothing was done; or failed, and then it may have been. No message has the secret in it.

An agent that is being started anew may drop a connection before it has read a request. So a request that is dropped
without a word is sent again as it was: whatever became of it the first time, an agent takes each signature once.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import signatures

#: Seconds for names, the connection and TLS; and for all that a module does.
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
HEALTH_SECONDS = 3.0
#: Bytes of an answer. What the modules tell of a node is far below.
MOST_ANSWER = 64 * 2**20
_UNAUTHORIZED = 401
_MOST_TOLD = 300
#: Seconds before what was dropped is sent again, each time.
_PAUSES = (0.1, 0.4, 1.0)
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for.
_NO_CHECK_TIME = 0x200000
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: A node that has gone without a word is given up after half a minute.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000))


@dataclass(frozen=True)
class Agent:
    """How the agent of a node is reached.

    `certificate` is what it must show, in PEM; one of several while it changes. None: a name and a certificate that
    this machine's certificate authorities know. A `url` with http counts for a loopback address alone.
    """

    url: str
    secret: str = field(repr=False)
    certificate: str | None = None


class AgentError(Exception):
    """Base of what goes wrong with an agent; the message is for the user."""


class AgentUnreachable(AgentError):
    """It could not be asked, and nothing was done: no connection, or another certificate than it should have."""


class AgentRefused(AgentError):
    """It was asked, and refused; nothing was done. `status` is HTTP's."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class AgentFailed(AgentError):
    """It was asked, and there is no answer that can be read. It may have done what was asked."""


def call(
    agent: Agent,
    module: str,
    arguments: Mapping[str, Any],
    check: bool = False,
    diff: bool = False,
    timeout: float = ANSWER_SECONDS,
) -> dict[str, Any]:
    """Run a module on the agent's node; returns what the module answers, also when that is a failure.

    `module` is its name within the collection, such as wg_drift; `timeout` is in seconds, connecting not included.
    Raises AgentUnreachable, AgentRefused or AgentFailed.
    """
    asked = {
        "arguments": dict(arguments),
        "check_mode": check,
        "diff": diff,
        # Two equal calls within a second would have one signature, and the agent takes each signature once.
        "nonce": secrets.token_hex(16),
    }
    body = json.dumps(asked, default=str).encode("utf-8")
    answer = _asked(agent, "POST", f"/v1/modules/{module}", body, timeout)
    # What a node says is data: nothing of it becomes a variable of its, or means something to Ansible itself.
    return {key: value for key, value in answer.items() if not key.startswith(("_", "ansible_"))}


def health(agent: Agent, timeout: float = HEALTH_SECONDS) -> dict[str, Any]:
    """What the agent tells of itself and its node. Raises as `call` does; nothing is changed either way."""
    path = f"/v1/health?nonce={secrets.token_hex(16)}"
    return _asked(agent, "GET", path, b"", timeout, connect=min(timeout, CONNECT_SECONDS))


def certificates(pem: str) -> list[str]:
    """The certificates in a text, each as PEM."""
    return _PEM.findall(pem)


# ---- one request


class _DroppedError(Exception):
    """The connection has ended without a byte of an answer; `sent` is whether the request may be with the agent."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


def _asked(
    agent: Agent, method: str, path: str, body: bytes, timeout: float, connect: float = CONNECT_SECONDS
) -> dict[str, Any]:
    headers = {
        **signatures.headers(agent.secret, method, path, body, int(time.time())),
        "Connection": "close",
        **({"Content-Type": "application/json"} if body else {}),
    }
    sent, why = False, ""
    for pause in (*_PAUSES, None):
        try:
            status, told = _once(agent, connect, timeout, (method, path, body or None, headers))
        except _DroppedError as dropped:
            sent, why = sent or dropped.sent, str(dropped)
            if pause is None:
                break
            time.sleep(pause)
        except AgentUnreachable:
            if sent:
                break
            raise
        else:
            # It has this signature already: from the first time.
            if sent and status == _UNAUTHORIZED:
                break
            return _read(status, told)
    if sent:
        raise AgentFailed(f"its agent ended the connection before it had answered ({why})")
    raise AgentUnreachable(f"no connection with its agent: {why}")


def _once(
    agent: Agent,
    connect: float,
    timeout: float,
    request: tuple[str, str, bytes | None, dict[str, str]],
) -> tuple[int, bytes]:
    where = urlsplit(agent.url)
    with _connected(agent, where, connect) as connection, _ended_after(connection.sock, timeout) as late:
        try:
            connection.request(*request)
        except OSError as error:
            # Not all of it was sent, and it is signed as a whole. There may be an answer that says why.
            return _early_answer(connection, error)
        return _answer(connection, late, timeout)


@contextmanager
def _connected(agent: Agent, where: SplitResult, timeout: float) -> Iterator[HTTPConnection]:
    host = where.hostname or ""
    try:
        port = where.port or (443 if where.scheme == "https" else 80)
        context = _context(agent.certificate) if where.scheme == "https" else None
    except (ValueError, ssl.SSLError):
        raise AgentUnreachable("its URL or its certificate in the registry is none") from None
    if context is None and agent.certificate is not None:
        raise AgentUnreachable("its URL says http, and it has a certificate: it is asked over https alone")
    # A body may have private keys in it; what signs it, hides nothing.
    if context is None and not _is_this_machine(host):
        raise AgentUnreachable(
            "its URL says http, and over the network it is asked by https alone; nothing was sent. "
            "playbooks/agent.yml deploys it with TLS"
        )
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.connect()
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is not None:
            connection.sock = _secured(connection.sock, context, host, agent.certificate)
        # From here on the deadline counts.
        connection.sock.settimeout(None)
    except OSError as error:
        connection.close()
        if isinstance(
            error, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            raise _DroppedError(_name(error), sent=False) from None
        raise AgentUnreachable(_why(error, timeout)) from None
    except UnicodeError:  # a name that cannot be written as IDNA
        raise AgentUnreachable("host name not known") from None
    try:
        yield connection
    finally:
        connection.close()


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _context(certificate: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None:
        context.load_default_certs()
    else:
        # It is known itself, byte for byte: whatever name it was made for, and whatever the two clocks say.
        context.check_hostname = False
        context.verify_flags |= _NO_CHECK_TIME
        context.load_verify_locations(cadata=certificate)
    return context


def _secured(
    plain: socket.socket, context: ssl.SSLContext, host: str, certificate: str | None
) -> ssl.SSLSocket:
    secured = context.wrap_socket(plain, server_hostname=host)
    # One that a known certificate has signed is not the known one.
    if certificate is not None and secured.getpeercert(binary_form=True) not in [
        ssl.PEM_cert_to_DER_cert(one) for one in certificates(certificate)
    ]:
        secured.close()
        raise ssl.SSLCertVerificationError("another certificate")
    return secured


def _why(error: OSError, timeout: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        told = getattr(error, "verify_message", "") or "another certificate"
        return f"its agent's certificate is not the one that it should be ({told}); nothing was sent"
    if isinstance(error, TimeoutError):
        return f"no answer of its agent within {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "its agent does not answer: connection refused"
    if isinstance(error, socket.gaierror):
        return "its agent's host name is not known"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with its agent: {error.reason or 'handshake failed'}"
    return f"no connection with its agent: {_name(error)}"


def _name(error: OSError) -> str:
    """What there is to say of it that names no address."""
    return error.strerror or type(error).__name__


@contextmanager
def _ended_after(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Whatever comes how slowly: after `seconds` nothing more comes, and the event is set."""
    late = threading.Event()

    def end() -> None:
        late.set()
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _early_answer(connection: HTTPConnection, error: OSError) -> tuple[int, bytes]:
    try:
        response = HTTPResponse(connection.sock)
        response.begin()
        return response.status, response.read(MOST_ANSWER + 1)
    except (OSError, HTTPException):
        raise _DroppedError(_name(error), sent=False) from None


def _answer(connection: HTTPConnection, late: threading.Event, timeout: float) -> tuple[int, bytes]:
    ended: Exception | None = None
    status, told = 0, b""
    try:
        response = connection.getresponse()
        status, told = response.status, response.read(MOST_ANSWER + 1)
    except (OSError, HTTPException, ValueError) as error:
        ended = error
    if late.is_set():
        raise AgentFailed(f"its agent has not answered within {timeout:g} s")
    # Raised for an end in the place of the status line, or before.
    if isinstance(ended, ConnectionResetError) and not status:
        raise _DroppedError(type(ended).__name__, sent=True)
    if ended is not None:
        raise AgentFailed(f"its agent ended the connection before it had answered ({type(ended).__name__})")
    return status, told


def _read(status: int, told: bytes) -> dict[str, Any]:
    if len(told) > MOST_ANSWER:
        raise AgentFailed(f"its agent's answer is longer than {MOST_ANSWER} bytes")
    try:
        answer = json.loads(told)
    except (ValueError, RecursionError):
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    if status == 200:
        raise AgentFailed("its agent's answer cannot be read")
    problem = answer.get("error") if isinstance(answer, dict) else None
    shown = " ".join(problem.split())[:_MOST_TOLD] if isinstance(problem, str) else f"HTTP status {status}"
    if status == _UNAUTHORIZED:
        raise AgentRefused(status, f"its agent refuses the signature: {shown}")
    if 400 <= status < 500 or status == 503:
        raise AgentRefused(status, f"its agent refuses: {shown}")
    raise AgentFailed(f"its agent failed: {shown}")
