"""The agent's processes: many calls at once, rights, how they end and are killed, and certificates."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.agent.client import Client
from tests.agent.running import SECRET, SECRETS, STATE_DIR, Agent
from tests.e2e import agent_calls, wg_node
from tests.e2e.agent_calls import CONFIG, DONE, PATH, A, B, many, peers_of
from tests.e2e.node_state import read_state
from tests.e2e.waiting import wait_for
from tests.e2e.wg_node import Bystander
from tests.e2e.wireguard_keys import peer_key
from tests.lab.fleet import ROOT
from tests.lab.host import ENVIRONMENT
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander
agent = agent_calls.agent
client = agent_calls.client
wg0 = agent_calls.wg0


# -- many at once, and slow ones


@pytest.mark.usefixtures("wg0")
def test_twenty_calls_at_once_are_all_carried_out(node: Node, client: Client) -> None:
    def add(number: int) -> Any:
        d = {"public_key": peer_key(f"at once {number}"), "allowed_ips": [f"10.80.9.{number}/32"]}
        return client.module("wg_peer", {"interface": "wg0", **d})

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(add, range(20)))
    assert [reply.body.get("msg") for reply in replies] == [None] * 20
    assert {peer_key(f"at once {number}") for number in range(20)} < peers_of(node)
    assert client.module("wg_instance", {"name": "wg0"}).body["changed"] is False


def test_slow_and_silent_clients_block_nobody(node: Node, client: Client) -> None:
    path, when = "/v1/health", int(time.time())
    head = f"GET {path} HTTP/1.1\r\nHost: node\r\n".encode()
    long = [f"{name}: {value}" for name, value in client.headers("POST", PATH, b"x", when).items()]
    body = "\r\n".join(["POST " + PATH + " HTTP/1.1", "Content-Length: 33554432", *long, "", "x"]).encode()
    clients: list[socket.socket] = []
    try:
        for number in range(700):
            try:
                slow = socket.create_connection((node.address, client.port), timeout=20)
            except OSError:
                continue
            clients.append(slow)
            slow.setblocking(False)
            try:
                slow.send((b"", head, body)[number % 3])
            except OSError:
                pass  # it had to make room
        assert len(clients) > 500
        for _ in range(5):
            assert client.health().status == 200
    finally:
        for slow in clients:
            slow.close()
    assert client.health().status == 200


def raw(client: Client, data: bytes) -> bytes:
    with socket.create_connection((client.host, client.port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while more := connection.recv(65536):
            found += more
        return found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00" * 10 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\n\r\n", 401),
    ],
)
def test_what_is_no_request_is_refused(client: Client, data: bytes, status: int) -> None:
    answer = raw(client, data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b'{"error": ' in answer
    assert client.health().status == 200


def test_a_connection_serves_many_requests_one_after_the_other(client: Client) -> None:
    def request(number: int) -> bytes:
        path = f"/v1/health?{time.monotonic_ns()}{number}"
        lines = [f"{name}: {value}" for name, value in client.headers("GET", path).items()]
        return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()

    answer = raw(client, request(1) + request(2) + request(3))
    assert answer.count(b"HTTP/1.1 200 OK") == 3


# -- rights


def status_of(node: Node, pid: str) -> dict[str, str]:
    lines = node.read(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


@pytest.mark.usefixtures("wg0")
def test_the_front_has_no_rights(node: Node, agent: Agent, client: Client) -> None:
    assert client.health().status == 200
    front = agent.front()
    status = status_of(node, front)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"] == ""
    assert re.search(r"^Max processes +0 +0 ", node.read(f"/proc/{front}/limits"), re.MULTILINE)
    nobody = node.run(["id", "-u", "nobody"]).stdout.strip()
    assert status["Uid"].split() == [nobody] * 4
    for path in (
        CONFIG,
        SECRETS,
        f"{STATE_DIR}/accepted",
        f"/proc/{agent.pid()}/environ",
        f"/proc/{agent.pid()}/mem",
    ):
        assert node.run(["test", "-e", path], check=False).returncode == 0, path
        # As the front would: its user, groups and capabilities, in its namespaces.
        tried = node.run(
            ["setpriv", "--reuid", nobody, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "cat", path],
            check=False,
        )  # fmt: skip
        assert tried.returncode != 0, path
    # What it holds open is the network, its channel, and no file of the node's.
    opened = node.run(["sh", "-c", f"readlink /proc/{front}/fd/*"]).stdout
    assert "/etc/" not in opened
    assert STATE_DIR not in opened
    for pid in (front, agent.pid()):
        assert SECRET not in node.run(["sh", "-c", f"tr '\\0' ' ' </proc/{pid}/cmdline"]).stdout
    # And the secret is not in its memory.
    dumped = node.run(["python3", "-c", _IN_MEMORY, front, SECRET], timeout=120).stdout
    assert dumped.strip() == "absent"
    privileged = node.run(["python3", "-c", _IN_MEMORY, agent.pid(), SECRET], timeout=120).stdout
    assert privileged.strip() == "present"


_IN_MEMORY = """
import sys
pid, secret = sys.argv[1], sys.argv[2].encode()
found = False
with open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in open(f"/proc/{pid}/maps"):
        span, rights = line.split()[:2]
        if not rights.startswith("rw"):
            continue
        start, end = (int(part, 16) for part in span.split("-"))
        try:
            memory.seek(start)
            found = found or secret in memory.read(end - start)
        except (OSError, ValueError, OverflowError):
            pass
print("present" if found else "absent")
"""


# -- ends


def test_when_one_process_ends_so_does_the_other(node: Node, agent: Agent, client: Client) -> None:
    for victim in (agent.front, agent.pid):
        front = agent.front()
        agent.signal("KILL", victim())
        assert agent.wait() != 0
        wait_for(node, f"! test -e /proc/{front}", 20)
        agent.start()
        assert client.health().status == 200


@pytest.mark.usefixtures("wg0")
def test_a_graceful_end_finishes_what_is_being_applied(node: Node, agent: Agent, client: Client) -> None:
    when_it_applies = f"while ! grep -q changing /run/vpnfleet/wg0.lock; do :; done; kill -TERM {agent.pid()}"
    waiting = subprocess.Popen([*node.enter(), "timeout", "60", "sh", "-c", when_it_applies], env=ENVIRONMENT)
    reply = client.syncconf("wg0", many(3000), max_removals=2)
    assert waiting.wait(60) == 0
    assert agent.wait() == 0
    assert reply.body == DONE
    assert len(peers_of(node)) == 3000
    agent.start()


@pytest.mark.usefixtures("wg0")
def test_killed_at_any_point_the_next_call_completes(
    node: Node, agent: Agent, client: Client, bystander: Bystander
) -> None:
    session = bystander.state()
    assert client.syncconf("wg0", many(1500), max_removals=2).body == DONE
    whole = [read_state(node).files[CONFIG].text]
    started = time.monotonic()
    assert client.syncconf("wg0", many(1500, 1)).body == DONE
    takes = time.monotonic() - started
    whole.append(read_state(node).files[CONFIG].text)
    for turn in range(8):
        pids = [agent.front(), agent.pid()]
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(client.syncconf, "wg0", many(1500, turn % 2))
            time.sleep(takes * turn / 8)
            agent.signal("KILL", *(reversed(pids) if turn % 2 else pids))
            agent.wait()
            try:
                assert reply.result().body == DONE  # it was quicker
            except (OSError, ValueError, http.client.HTTPException):
                pass  # killed before it could answer
        # The file is the old one or the new one, whole.
        assert read_state(node).files[CONFIG].text in whole
        agent.start()
        assert client.syncconf("wg0", many(1500, turn % 2)).body == DONE
        assert read_state(node).files[CONFIG].text == whole[turn % 2]
        assert node.read("/run/vpnfleet/wg0.lock") == ""
        assert client.module("wg_instance", {"name": "wg0"}).body["changed"] is False
    bystander.check(session)


# -- TLS


def certificate(folder: Path, node: Node, name: str) -> tuple[str, str]:
    """A certificate of the node's own; returns it and its key as text."""
    pair = [folder / f"{name}.crt", folder / f"{name}.key"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{node.address}",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-out", pair[0], "-keyout", pair[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair[0].read_text(), pair[1].read_text()


@pytest.mark.usefixtures("wg0")
def test_by_tls_and_with_a_new_certificate_while_it_runs(agent: Agent, node: Node, tmp_path: Path) -> None:
    agent.stop()
    pairs = {name: certificate(tmp_path, node, name) for name in ("first", "second")}

    def put(name: str) -> None:
        node.write("/run/agent.crt", pairs[name][0])
        node.write("/run/agent.key", pairs[name][1], 0o600)

    put("first")
    secure = Agent(
        node, port=8444, options=["--certificate", "/run/agent.crt", "--key", "/run/agent.key"],
        certificate=tmp_path / "first.crt",
    )  # fmt: skip
    secure.start()
    try:
        assert secure.client().syncconf("wg0", A).body == DONE
        # Somebody who says nothing, or speaks no TLS, blocks nobody.
        with (
            socket.create_connection((node.address, 8444)),
            socket.create_connection((node.address, 8444)) as plain,
        ):
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert secure.client().health().status == 200
        old = secure.front()
        put("second")
        secure.signal("HUP", secure.pid())
        secure.certificate = tmp_path / "second.crt"
        deadline = time.monotonic() + 30
        while secure.front() == old or secure.log().count("ready on") < 2:
            assert time.monotonic() < deadline, secure.log()
            time.sleep(0.05)
        assert secure.client().health().status == 200
        assert secure.client().syncconf("wg0", A + B).body == DONE
        # A certificate that is none changes nothing.
        node.write("/run/agent.crt", "none")
        secure.signal("HUP", secure.pid())
        deadline = time.monotonic() + 30
        while "the front cannot start" not in secure.log():
            assert time.monotonic() < deadline, secure.log()
            time.sleep(0.05)
        assert secure.client().health().status == 200
    finally:
        secure.stop()
        agent.start()


@pytest.mark.usefixtures("agent")
def test_what_cannot_be_started_says_why(node: Node) -> None:
    module = "ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.run"

    def start(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*node.enter(), "env", f"PYTHONPATH={ROOT / 'collections'}", "python3", "-m", module, *arguments],
            capture_output=True, text=True, timeout=60, env=ENVIRONMENT,
        )  # fmt: skip
        return done.returncode, done.stderr

    listen = ("--listen", "127.0.0.1:9000", "--state-dir", "/run/other")
    assert start(*listen, "--secrets", "/nowhere") == (
        2, "the agent cannot start: /nowhere cannot be read: No such file or directory\n"
    )  # fmt: skip
    node.write("/run/open", "s" * 40, 0o644)
    assert "mode 0600" in start(*listen, "--secrets", "/run/open")[1]
    code, told = start(*listen, "--secrets", SECRETS, "--user", "nosuchuser")
    assert (code, "there is no user nosuchuser" in told) == (1, True)
    assert (
        "another agent uses"
        in start("--listen", "127.0.0.1:9001", "--secrets", SECRETS, "--state-dir", STATE_DIR)[1]
    )
    assert "root" in start(*listen, "--secrets", SECRETS, "--user", "root")[1]
