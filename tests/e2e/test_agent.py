"""The agent on a node: who may call, what is refused, and what is applied."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.agent.client import Client
from tests.agent.running import SECRET, SECRETS, Agent, prepare
from tests.e2e import agent_calls, wg_node
from tests.e2e.agent_calls import (
    CONFIG,
    DONE,
    FAILED,
    INTERFACE,
    PATH,
    A,
    B,
    encoded,
    many,
    peers_of,
    section,
    unchanged,
)
from tests.e2e.broken_tools import FOLDER, order, stand_ins
from tests.e2e.node_state import NodeState, read_state
from tests.e2e.wg_node import Bystander
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key, public_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander
agent = agent_calls.agent
client = agent_calls.client
wg0 = agent_calls.wg0


# -- the seed's example


EXAMPLE = """
import base64
import hmac
import hashlib
import sys
import time
import requests

# Prepare config
config = f'''
[Peer]
PublicKey = {sys.argv[3]}
AllowedIPs = 10.80.0.2/32

[Peer]
PublicKey = {sys.argv[4]}
AllowedIPs = 10.80.0.3/32
'''

# Encode
config_b64 = base64.b64encode(config.encode()).decode()

# Build request
agent_url = sys.argv[1]
secret = sys.argv[2]
path = "/v1/wg/wg0/syncconf"
body = f'{{"config": "{config_b64}"}}'
timestamp = str(int(time.time()))

# Sign request
message = f"POST|{path}|{body}|{timestamp}"
signature = hmac.new(
    secret.encode(),
    message.encode(),
    hashlib.sha256
).hexdigest()

# Make request
response = requests.post(
    f"{agent_url}{path}",
    headers={
        'X-Signature': signature,
        'X-Timestamp': timestamp,
        'Content-Type': 'application/json'
    },
    json={'config': config_b64}
)

print(response.json())
"""


@pytest.mark.usefixtures("wg0")
def test_the_example_of_the_documents_works(node: Node, agent: Agent) -> None:
    url = f"http://{node.address}:{agent.port}"
    keys = [peer_key("c"), peer_key("b")]
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE, url, SECRET, *keys], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(DONE), done.stderr
    assert peers_of(node) == set(keys)
    assert peer_key("c") in read_state(node).files[CONFIG].text


# -- who may call


def test_nobody_may_call_who_does_not_sign_rightly_and_for_the_first_time(
    node: Node, agent: Agent, client: Client, wg0: NodeState
) -> None:
    body = json.dumps({"config": encoded(A), "max_removals": 5}).encode()
    now = int(time.time())
    right = client.headers("POST", PATH, body, now)
    other = json.dumps({"max_removals": 5, "config": encoded(A)}).encode()
    forged = agent.client(secret="f" * 64)
    refused = {
        "unsigned": client.send("POST", PATH, body, {}),
        "forged": forged.request("POST", PATH, body),
        "truncated": client.send("POST", PATH, body[:-1], right),
        "a truncated signature": client.send(
            "POST", PATH, body, {**right, "X-Signature": right["X-Signature"][:-1]}
        ),
        "re-ordered": client.send("POST", PATH, other, right),
        "another path": client.send("POST", "/v1/wg/wgby/syncconf", body, right),
        "a query string": client.send("POST", f"{PATH}?x=1", body, right),
        "another method": client.send("GET", PATH, body, right),
        "another time": client.send("POST", PATH, body, {**right, "X-Timestamp": str(now + 1)}),
        "stale": client.request("POST", PATH, body, now - 302),
        "future": client.request("POST", PATH, body, now + 310),
    }
    words = {re.sub(r"\d+$", "", reply.body["error"]) for reply in refused.values()}
    assert {name: reply.status for name, reply in refused.items()} == dict.fromkeys(refused, 401)
    # Whichever part was wrong: the words are the same, and the agent's time is told.
    assert len(words) == 1
    told = re.search(r"says (\d+)$", refused["stale"].body["error"])
    assert told
    assert abs(int(told.group(1)) - now) < 60
    unchanged(node, wg0)
    assert client.send("POST", PATH, body, right).body == DONE
    assert client.send("POST", PATH, body, right).status == 401
    agent.stop()
    agent.start()
    assert client.send("POST", PATH, body, right).status == 401
    agent.signal("KILL", agent.pid())
    agent.wait()
    agent.start()
    assert client.send("POST", PATH, body, right).status == 401
    assert SECRET not in agent.log()


def test_a_secret_is_changed_without_a_moment_in_between(node: Node, agent: Agent, client: Client) -> None:
    newer = agent.client(secret="n" * 64)
    assert newer.health().status == 401
    prepare(node, "n" * 64, SECRET)
    assert (newer.health().status, client.health().status) == (200, 200)
    node.write(SECRETS, "broken\n", 0o600)
    assert (newer.health().status, client.health().status) == (200, 200)
    prepare(node, "n" * 64)
    agent.signal("HUP", agent.pid())
    assert (newer.health().status, client.health().status) == (200, 401)
    prepare(node)
    assert (newer.health().status, client.health().status) == (401, 200)


def test_a_clock_that_is_off_is_told(client: Client) -> None:
    for off in (-3600, 3600):
        reply = client.request("GET", "/v1/health", timestamp=int(time.time()) + off)
        assert reply.status == 401
        assert "off the agent's clock, which says" in reply.body["error"]


# -- what is refused


def bad_bodies() -> dict[str, tuple[bytes, str]]:
    def body(config: str, **more: Any) -> bytes:
        return json.dumps({"config": encoded(config), **more}).encode()

    words = ("PostUp = touch /run/hooked", "PreDown = x", "Address = 10.0.0.1/24", "DNS = 10.0.0.1", "MTU = 1400",
             "Table = off", "SaveConfig = true")  # fmt: skip
    bad_key = many(9_999) + section("last", "10.81.0.1/32").replace(
        peer_key("last"), peer_key("last")[:-2] + "?="
    )
    return {
        "no JSON": (b"{", "is not JSON"),
        "a list": (b"[]", "is not a JSON object"),
        "UTF-16": ('{"config": "eA=="}'.encode("utf-16"), "is not JSON"),
        "a field twice": (b'{"config": "eA==", "config": "eA=="}', "a field is there twice"),
        "deep": (b"[" * 100_000, "nested too deeply"),
        "nothing": (b"", "is not JSON"),
        "no config": (b"{}", "config: is needed"),
        "a number": (b'{"config": 5}', "config: is needed"),
        "an unknown field": (body(A, colour="red"), "unknown field 'colour'"),
        "no base64": (b'{"config": "W1BlZXJd!"}', "is not base64"),
        "no text": (b'{"config": "//79"}', "is not text in UTF-8"),
        "no config in it": (body("hello"), "line 1"),
        "empty": (body(""), "no [Peer]"),
        "without peers": (body(f"[Interface]\nListenPort = {INTERFACE['listen_port']}\n"), "no [Peer]"),
        "one bad key in 10,000": (body(bad_key), "line 49996: [Peer]: PublicKey"),
        "a key twice": (body(A + section("a", "10.80.0.9/32")), "is there twice"),
        "overlapping": (body(A + section("b", "10.80.0.0/24")), "overlap"),
        "host bits": (body(section("a", "10.80.0.2/24")), "host bits"),
        "NUL": (body(A + "# \0\n"), "NUL byte"),
        "another key": (body(f"[Interface]\nPrivateKey = {private_key('x')}\n{A}{B}"), "PrivateKey in the"),
        "another port": (body(f"[Interface]\nListenPort = 5\n{A}{B}"), "ListenPort in the"),
        "another mark": (body(f"[Interface]\nFwMark = 5\n{A}{B}"), "FwMark in the"),
        "everything": (body(section("b", "0.0.0.0/0")), "into the tunnel"),
        "its own key": (body(A + B + f"[Peer]\nPublicKey = {public_key('agent wg0')}\n"), "own public key"),
        "too many removed": (body(section("new", "10.80.0.9/32"), max_removals=1), "2 of 2 peers would be removed"),
        "a bad fuse": (body(A, max_removals="x"), "max_removals"),
        **{line: (body(f"[Interface]\n{line}\n{A}{B}"), "word of wg-quick's") for line in words},
        "a hook of a peer": (body(f"{A}{words[0]}\n"), "word of wg-quick's"),
    }  # fmt: skip


def test_what_is_wrong_is_refused_and_nothing_applied(node: Node, client: Client, wg0: NodeState) -> None:
    for name, (body, told) in bad_bodies().items():
        reply = client.request("POST", PATH, body)
        assert reply.status == 400, (name, reply)
        assert list(reply.body) == ["error"], name
        assert reply.body["error"].startswith(FAILED), name
        assert told in reply.body["error"], (name, reply.body)
        assert private_key("x") not in reply.body["error"]
    unchanged(node, wg0)
    assert node.run(["test", "-e", "/run/hooked"], check=False).returncode == 1
    # A file that cannot be understood may hold hooks and a table: it is not replaced for the sake of a peer.
    broken = f"{wg0.files[CONFIG].text}PostUp\n"
    node.write(CONFIG, broken, 0o600)
    reply = client.syncconf("wg0", A + B + section("c", "10.80.0.4/32"))
    assert reply.status == 400
    assert f"{CONFIG} cannot be understood (line " in reply.body["error"]
    after = read_state(node)
    assert (after.interfaces["wg0"], after.files[CONFIG].text) == (wg0.interfaces["wg0"], broken)


def test_what_fails_on_the_node_is_told_and_nothing_applied(
    node: Node, client: Client, wg0: NodeState
) -> None:
    refused = f"echo {peer_key('c')} >{FOLDER}/refused; {order(0, 'refuse')}"
    with stand_ins(node):
        for broken, told in ((order(1, "fail"), "out of luck"), (refused, "No buffer space available")):
            node.run(["sh", "-c", broken])
            reply = client.syncconf("wg0", A + B + section("c", "10.80.0.4/32"))
            assert (reply.status, list(reply.body)) == (500, ["error"]), reply
            assert reply.body["error"].startswith(FAILED)
            assert told in reply.body["error"]
            unchanged(node, wg0)


def test_paths_methods_and_interfaces_that_are_not_there(node: Node, client: Client, wg0: NodeState) -> None:
    good = json.dumps({"config": encoded(A)}).encode()
    for name in ("wg9", "..", "a" * 16, "wg0%2f", "-x"):
        reply = client.request("POST", f"/v1/wg/{name}/syncconf", good)
        assert (reply.status, list(reply.body)) == (404, ["error"]), name
    assert client.syncconf("lo", A).status in (400, 404)
    assert client.request("POST", "/v1/wg/wg0/other", good).status == 404
    assert client.request("POST", "/", good).status == 404
    wrong = client.request("PUT", PATH, good)
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert client.request("POST", "/v1/health").headers["allow"] == "GET"
    assert client.request("POST", "/v1/modules/wg_shell", b"{}").status == 404
    unchanged(node, wg0)
    assert "wg9.lock" not in node.run(["ls", "/run/vpnfleet"]).stdout


# -- what is applied


@pytest.mark.usefixtures("wg0")
def test_a_configuration_is_applied_live_and_in_the_file(node: Node, client: Client) -> None:
    config = (
        f"[Interface]\r\nPrivateKey = {private_key('agent wg0')}\r\nListenPort = 20080\r\n\r\n"
        + section(
            "b", "10.80.0.3/32", "10.85.0.0/24", PersistentKeepalive=25, PresharedKey=preshared_key("b")
        )
        + section("c", "10.80.0.4/32")
    )
    assert client.syncconf("wg0", config).body == DONE
    found = read_state(node)
    live = found.interfaces["wg0"].peers
    assert set(live) == {peer_key("b"), peer_key("c")}
    assert live[peer_key("b")].keepalive == 25
    assert preshared_key("b") in found.files[CONFIG].text
    assert peer_key("a") not in found.files[CONFIG].text
    assert "10.85.0.0/24 dev wg0" in node.run(["ip", "route"]).stdout
    # The next run of the module finds nothing to do, and neither does the same call once more.
    again = client.module("wg_instance", {"name": "wg0"})
    assert again.body["changed"] is False
    assert client.syncconf("wg0", config).body == DONE
    unchanged(node, found)
    # What somebody changed by hand behind its back is put right by it.
    node.run(["wg", "set", "wg0", "peer", peer_key("c"), "remove"])
    node.run(["wg", "set", "wg0", "peer", peer_key("b"), "allowed-ips", "10.80.7.7/32"])
    assert client.syncconf("wg0", config + "\n").body == DONE
    unchanged(node, found)


def test_the_modules_answer_as_they_exit(node: Node, client: Client, wg0: NodeState) -> None:
    d = {"public_key": peer_key("d"), "allowed_ips": "10.80.0.9", "persistent_keepalive": "25"}
    checked = client.module("wg_peer", {"interface": "wg0", **d}, check_mode=True, diff=True).body
    unchanged(node, wg0)
    done = client.module("wg_peer", {"interface": "wg0", **d}, diff=True).body
    assert checked == done
    assert (done["changed"], done["peers_added"]) == (True, [peer_key("d")])
    assert "keepalive 25" in done["diff"][0]["after"]
    listed = [{"public_key": peer_key("a"), "allowed_ips": ["10.80.0.2/32"]}]
    drift = client.module("wg_drift", {"interfaces": [{"interface": "wg0", "peers": listed}]}).body
    assert drift["summary"]["unknown_count"] == 2
    info = client.module("wg_info", {"interfaces": ["wg0"]}).body
    assert info["interfaces"][0]["peer_count"] == 3
    assert client.module("wg_peer", {"colour": "red"}).body["msg"].startswith("Unsupported parameters")
    assert client.module("wg_peer", {"interface": "nope9", **d}).body["failed"] is True
    secret = client.module("wg_peer", {"interface": "wg0", **d, "preshared_key": private_key("s")[:-3]}).body
    assert secret["failed"] is True
    assert private_key("s")[:-3] not in json.dumps(secret)


@pytest.mark.usefixtures("wg0", "bystander")
def test_health_tells_numbers_and_no_key(client: Client) -> None:
    reply = client.health()
    by_name = {entry["name"]: entry for entry in reply.body["interfaces"]}
    assert by_name["wg0"] == {
        "name": "wg0", "up": True, "listen_port": 20080, "peers": 2, "latest_handshake": 0,
        "implementation": by_name["wg0"]["implementation"],
    }  # fmt: skip
    assert by_name["wgby"]["latest_handshake"] > 0
    assert {"agent", "python", "kernel", "wireguard_tools"} <= set(reply.body["versions"])
    assert not re.search(r"[A-Za-z0-9+/]{42}", json.dumps(reply.body))


@pytest.mark.usefixtures("wg0")
def test_no_packet_of_a_device_is_lost_while_500_peers_come_and_go(
    node: Node, client: Client, bystander: Bystander, lab: Lab
) -> None:
    device = lab.devices[0]
    mine = f"[Peer]\nPublicKey = {public_key('agent device')}\nAllowedIPs = 10.80.0.7/32\n\n"
    assert client.syncconf("wg0", mine + A + B).body == DONE
    session = bystander.state()
    device.connect(
        private_key("agent device"), "10.80.0.7/32", public_key("agent wg0"), f"{node.address}:20080", "10.80.0.0/16"
    )  # fmt: skip
    try:
        assert device.ping("10.80.0.1", count=1, timeout=20).lost == 0
        device.run(["wg", "set", "wg0", "listen-port", "41000"])  # it roams
        assert device.ping("10.80.0.1", count=1, timeout=20).lost == 0
        ping = device.start_ping("10.80.0.1", interval=0.01)
        assert ping.wait_for_reply()
        for config, removals in ((many(500), 10), (many(500, 1), 10), (A, 500)):
            assert client.syncconf("wg0", mine + config, max_removals=removals).body == DONE
        result = ping.stop()
        assert result.sent > 20
        assert result.lost == 0
        seen = read_state(node).interfaces["wg0"].peers[public_key("agent device")]
        assert seen.endpoint == f"{device.address}:41000"
    finally:
        device.disconnect()
    bystander.check(session)
