"""The client of a node's agent, against real servers: what it sends, what it takes for an answer, and what it says of
what goes wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import signatures
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import agent_call, agent_transport
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    Agent,
    AgentFailed,
    AgentRefused,
    AgentUnreachable,
)
from tests.self_signed import Identity
from tests.unit.plugins.plugin_utils.answering_server import Reply, Server, answering, http

SECRET = "5ecre7" * 10


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(reply: Reply, context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(reply, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_call_is_signed_over_what_is_sent(serve: Callable[..., Server]) -> None:
    server = serve(answering({"changed": True, "instances": []}))
    answer = agent_call.call(Agent(server.url, SECRET), "wg_drift", {"_packed": "é|"}, check=True, diff=True)

    assert answer == {"changed": True, "instances": []}
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert lines[0] == "POST /v1/modules/wg_drift HTTP/1.1"
    sent = json.loads(body)
    assert (sent["arguments"], sent["check_mode"], sent["diff"]) == ({"_packed": "é|"}, True, True)
    message = b"POST|/v1/modules/wg_drift|" + body + b"|" + headers["x-timestamp"].encode()
    assert headers["x-signature"] == hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert SECRET.encode() not in server.requests[0]


def test_two_equal_calls_within_a_second_are_signed_differently(serve: Callable[..., Server]) -> None:
    server = serve(answering({}))
    for _ in range(3):
        agent_call.call(Agent(server.url, SECRET), "wg_info", {})
        agent_call.health(Agent(server.url, SECRET))
    signatures = {
        line
        for request in server.requests
        for line in request.split(b"\r\n")
        if line.startswith(b"X-Signature")
    }
    assert len(signatures) == 6


def test_nothing_that_a_node_says_means_something_to_ansible(serve: Callable[..., Server]) -> None:
    server = serve(answering({"changed": False, "ansible_facts": {"a": 1}, "_ansible_x": 1, "failed": True}))
    assert agent_call.call(Agent(server.url, SECRET), "wg_info", {}) == {"changed": False, "failed": True}


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (http(401, b'{"error": "the time\\n is off"}'), AgentRefused, "refuses the signature: the time is off"),
        (http(400, b'{"error": "no such module"}'), AgentRefused, "no such module"),
        (http(404, b"<html>"), AgentRefused, "HTTP status 404"),
        (http(413, b"[]"), AgentRefused, "HTTP status 413"),
        (http(503, b'{"error": "it is stopping"}'), AgentRefused, "it is stopping"),
        (http(500, b'{"error": "disk full"}'), AgentFailed, "disk full"),
        (http(302, b""), AgentFailed, "HTTP status 302"),
        (http(200, b"{"), AgentFailed, "cannot be read"),
        (http(200, b"[1]"), AgentFailed, "cannot be read"),
        (http(200, b"[" * 100_000), AgentFailed, "cannot be read"),
        (http(200, b'{"changed": true', 900), AgentFailed, "cannot be read"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", AgentFailed, "ended the connection before it had answered"),
        (b"", AgentFailed, "ended the connection before it had answered"),
        (http(400, b'{"error": "' + b"x" * 10_000 + b'"}'), AgentRefused, "x" * 300),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told_apart(
    serve: Callable[..., Server], reply: bytes, kind: type[Exception], told: str
) -> None:
    server = serve(lambda _request: reply)
    with pytest.raises(kind) as caught:
        agent_call.call(Agent(server.url, SECRET), "wg_instance", {})
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400
    assert SECRET not in repr(caught.value)
    # It is asked once; only what has ended without a word is sent again, as it was.
    assert len(set(server.requests)) == 1
    assert len(server.requests) == (1 if reply else 4)


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(AgentUnreachable, match="connection refused"):
        agent_call.call(Agent(f"http://127.0.0.1:{closed_port()}", SECRET), "wg_info", {})
    with pytest.raises(AgentUnreachable, match="host name is not known"):
        agent_call.call(Agent("https://nowhere.invalid:1", SECRET), "wg_info", {})


def test_who_takes_the_connection_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(AgentFailed, match=r"not answered within 0\.3 s"):
            agent_call.call(Agent(f"http://127.0.0.1:{port}", SECRET), "wg_info", {}, timeout=0.3)
        # Of TLS, not even the connection comes about.
        with pytest.raises(AgentUnreachable, match=r"no answer of its agent within 0\.3 s"):
            agent_call.health(Agent(f"https://127.0.0.1:{port}", SECRET), timeout=0.3)


def test_a_trickle_is_no_answer() -> None:
    ended = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _from = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                try:
                    while not ended.wait(0.05):
                        connection.sendall(b"X-More: x\r\n")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(AgentFailed, match="not answered within"):
            agent_call.call(
                Agent(f"http://127.0.0.1:{listening.getsockname()[1]}", SECRET), "wg_info", {}, timeout=0.5
            )
        ended.set()
        thread.join(10)


def test_an_answer_is_bounded(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_call, "MOST_ANSWER", 1000)
    server = serve(answering({"msg": "x" * 2000}))
    with pytest.raises(AgentFailed, match="longer than 1000 bytes"):
        agent_call.call(Agent(server.url, SECRET), "wg_info", {})


def test_a_body_that_is_refused_before_it_has_come_is_refused() -> None:
    """An agent that takes no such long body says so, and reads no further."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _from = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(http(413, b'{"error": "the body is too long"}'))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(AgentRefused, match="too long"):
            agent_call.call(
                Agent(f"http://127.0.0.1:{listening.getsockname()[1]}", SECRET),
                "wg_info",
                {"_packed": "x" * 2**22},
            )
        thread.join(10)


def test_what_was_dropped_without_a_word_is_sent_again_as_it_was(serve: Callable[..., Server]) -> None:
    """An agent that starts anew drops it; and each signature counts once, whatever became of the first."""
    replies = [b"", http(200, b"{}")]
    server = serve(lambda _request: replies.pop(0))
    assert agent_call.call(Agent(server.url, SECRET), "wg_info", {}) == {}
    assert len(server.requests) == 2
    assert len(set(server.requests)) == 1

    replies += [b"", http(401, b'{"error": "seen before"}')]
    with pytest.raises(AgentFailed, match="before it had answered"):
        agent_call.call(Agent(server.url, SECRET), "wg_instance", {})


def test_who_is_gone_after_it_was_asked_may_have_done_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def die() -> None:
            connection, _from = listening.accept()
            with connection:
                connection.recv(65536)
                listening.close()

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(AgentFailed, match="before it had answered"):
            agent_call.call(Agent(f"http://127.0.0.1:{port}", SECRET), "wg_info", {})
        thread.join(10)


# ---- TLS


def test_the_certificate_in_the_registry_is_the_one(serve: Callable[..., Server], tmp_path: Path) -> None:
    mine, other = Identity(tmp_path, "mine"), Identity(tmp_path, "other")
    server = serve(answering({"changed": False}), mine.context)
    assert agent_call.call(Agent(server.url, SECRET, mine.pem), "wg_info", {}) == {"changed": False}
    # Two while it changes, in any order.
    both = f"{other.pem}\n{mine.pem}"
    assert agent_call.call(Agent(server.url, SECRET, both), "wg_info", {}) == {"changed": False}
    with pytest.raises(AgentUnreachable, match=r"not the one that it should be.*nothing was sent"):
        agent_call.call(Agent(server.url, SECRET, other.pem), "wg_info", {})
    assert len(server.requests) == 2


def test_without_one_only_known_authorities_count(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(answering({}), Identity(tmp_path, "mine").context)
    with pytest.raises(AgentUnreachable, match="certificate is not the one"):
        agent_call.call(Agent(server.url, SECRET), "wg_info", {})
    assert server.requests == []


def test_what_the_certificate_has_signed_is_not_it(serve: Callable[..., Server], tmp_path: Path) -> None:
    mine = Identity(tmp_path, "mine")
    server = serve(answering({}), Identity(tmp_path, "child", by=mine).context)
    with pytest.raises(AgentUnreachable, match="another certificate"):
        agent_call.call(Agent(server.url, SECRET, mine.pem), "wg_info", {})
    assert server.requests == []


@pytest.mark.parametrize(("age", "days"), [(40, -1), (-1, 30)])
def test_the_known_one_counts_whatever_its_dates(
    serve: Callable[..., Server], tmp_path: Path, age: int, days: int
) -> None:
    """A node's clock may be ahead, and nobody is to be locked out of a node by the calendar."""
    mine = Identity(tmp_path, "mine", days=days, age=age)
    server = serve(answering({}), mine.context)
    assert agent_call.call(Agent(server.url, SECRET, mine.pem), "wg_info", {}) == {}
    # Another one is not it all the same.
    other = Identity(tmp_path, "other")
    with pytest.raises(AgentUnreachable, match="not the one that it should be"):
        agent_call.call(Agent(server.url, SECRET, other.pem), "wg_info", {})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "stored", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_lets_nobody_in(
    serve: Callable[..., Server], tmp_path: Path, stored: str
) -> None:
    server = serve(answering({}), Identity(tmp_path, "mine").context)
    with pytest.raises(AgentUnreachable):
        agent_call.call(Agent(server.url, SECRET, stored), "wg_info", {})
    assert server.requests == []


def test_who_has_a_certificate_is_not_asked_in_clear(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(answering({}))
    with pytest.raises(AgentUnreachable, match="https alone"):
        agent_call.call(Agent(server.url, SECRET, Identity(tmp_path, "mine").pem), "wg_info", {})
    assert server.requests == []


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "[2001:db8::1]", "node1.example.com", "localhost.example.com", "127.1", "10.0.0.1"]
)
def test_over_the_network_nothing_is_sent_in_clear(host: str) -> None:
    agent = Agent(f"http://{host}:1", SECRET)
    asks: list[Callable[[], object]] = [
        lambda: agent_call.health(agent),
        lambda: agent_call.call(agent, "wg_instance", {}),
    ]
    for ask in asks:
        with pytest.raises(AgentUnreachable, match=r"https alone; nothing was sent"):
            ask()


def test_on_this_machine_plain_http_is_enough(serve: Callable[..., Server]) -> None:
    server = serve(answering({}))
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        assert agent_call.health(Agent(url, SECRET)) == {}


def test_plain_http_where_tls_is_spoken_is_no_answer(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(answering({}), Identity(tmp_path, "mine").context)
    with pytest.raises((AgentFailed, AgentUnreachable)):
        agent_call.call(Agent(server.url.replace("https", "http"), SECRET), "wg_info", {})


# ---- while secrets and certificates change


def test_a_secret_that_has_changed_on_the_way_is_taken_up(serve: Callable[..., Server]) -> None:
    new = "n" * 64

    def reply(request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
        right = signatures.sign(new, "POST", "/v1/modules/wg_info", body, headers["X-Timestamp"])
        return http(200, b"{}") if headers["X-Signature"] == right else http(401, b'{"error": "signature"}')

    server = serve(reply)
    old, newer = Agent(server.url, SECRET), Agent(server.url, new)
    module = "vpnfleet.wireguard.wg_info"
    assert agent_transport.run_module(old, lambda: newer, module, {}, False, False) == {}
    assert len(server.requests) == 2
    for again in (lambda: old, lambda: None):
        with pytest.raises(AgentRefused):
            agent_transport.run_module(old, again, module, {}, False, False)
    assert len(server.requests) == 4


def test_what_may_have_been_done_is_not_asked_again(serve: Callable[..., Server]) -> None:
    server = serve(lambda _request: http(500, b"{}"))
    with pytest.raises(AgentFailed) as caught:
        agent_transport.run_module(
            Agent(server.url, SECRET), lambda: Agent(server.url, "x"), "wg_info", {}, False, False
        )
    assert not agent_transport.is_away(caught.value)
    assert len(server.requests) == 1


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(Agent("http://127.0.0.1:1", SECRET))
