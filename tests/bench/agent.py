"""syncconf through the agent against `wg syncconf` on the node, 10,000 peers, one of them changed.

Each side has an interface of its own, with as many peers, and changes the same one there and back. The agent's side is
all that a caller waits for: the file read, encoded and signed, sent from the controller, checked, applied, read back,
and the answer read. The other side is one process on the node, timed by the program on the node that starts it, so
that no way there is counted.
"""

from __future__ import annotations

import base64
import itertools
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.agent.running import running
from tests.bench import fleet_data
from tests.bench.side_by_side import Comparison, compare
from tests.lab.fleet import Lab
from tests.lab.host import ENVIRONMENT
from tests.lab.node import Node

PEERS = 10_000
# Starts `wg syncconf` for each line that it reads, and says when that has ended.
_STARTER = """
import subprocess, sys
for line in sys.stdin:
    subprocess.run(["/usr/bin/wg", "syncconf", *line.split()], check=True)
    print("done", flush=True)
"""


def _peers(entry: dict[str, Any], instead: str | None) -> str:
    """The [Peer] sections of an instance; with `instead`, the peer in the middle has that network."""
    parts = []
    for number, peer in enumerate(entry["peers"]):
        nets = [instead] if instead and number == PEERS // 2 else peer["allowed_ips"]
        parts.append(f"[Peer]\nPublicKey = {peer['public_key']}\nAllowedIPs = {', '.join(nets)}\n")
    return "\n".join(parts)


def syncconf(lab: Lab, folder: Path, runs: int) -> Comparison:
    """The comparison; both sides begin with the interface made by the module."""
    node = lab.nodes[0]
    folder.mkdir(parents=True, exist_ok=True)
    ours = fleet_data.instance("wgb0", 52000, "10.64.0.0/16", PEERS)
    theirs = fleet_data.instance("wgb1", 52001, "10.65.0.0/16", PEERS)
    files = [folder / "syncconf_a.conf", folder / "syncconf_b.conf"]
    for path, instead in zip(files, (None, "10.64.200.200/32"), strict=True):
        path.write_text(_peers(ours, instead), encoding="ascii")
    head = f"[Interface]\nPrivateKey = {theirs['private_key']}\nListenPort = {theirs['listen_port']}\n\n"
    for name, instead in (("a", None), ("b", "10.65.200.200/32")):
        node.write(f"/run/{name}.conf", head + _peers(theirs, instead), 0o600)
    with running(node) as agent:
        client = agent.client(timeout=300)
        for entry in (ours, theirs):
            made = client.module("wg_instance", entry)
            assert made.status == 200, made.body
            assert not made.body.get("failed"), made.body
        turn, other_turn = itertools.cycle(reversed(files)), itertools.cycle(("b", "a"))
        starter = subprocess.Popen(
            [*node.enter(), "python3", "-c", _STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert starter.stdin is not None
        assert starter.stdout is not None
        asks, answers = starter.stdin, starter.stdout

        def by_agent() -> None:
            encoded = base64.b64encode(next(turn).read_bytes()).decode("ascii")
            path = f"/v1/wg/wgb0/syncconf?{time.monotonic_ns()}"
            reply = client.request("POST", path, f'{{"config": "{encoded}"}}'.encode())
            if reply.status != 200:
                raise RuntimeError(str(reply.body))

        def by_wg() -> None:
            asks.write(f"wgb1 /run/{next(other_turn)}.conf\n")
            asks.flush()
            if answers.readline() != "done\n":
                raise RuntimeError("wg syncconf failed")

        try:
            result = compare(
                "agent_syncconf_10000_peers_one_changed",
                2.0,
                ("a signed syncconf call from the controller, 10,000 peers, one changed", by_agent),
                ("a process wg syncconf on the node with as many peers, one changed", by_wg),
                runs,
            )
            _check(node, files[runs % 2 == 0])
        finally:
            asks.close()
            starter.wait(30)
    for name in ("wgb0", "wgb1"):
        node.run(["ip", "link", "delete", "dev", name])
        node.run(["rm", "-f", f"/etc/wireguard/{name}.conf"])
    while node.run(["sh", "-c", "ls /run/wireguard/wgb?.sock"], check=False).returncode == 0:
        time.sleep(0.05)
    return result


def _check(node: Node, last: Path) -> None:
    """What runs is what the last call asked for: a bench of what does nothing would be quick."""
    shown = node.run(["wg", "show", "wgb0", "allowed-ips"]).stdout
    found = {tuple(line.split("\t")) for line in shown.splitlines()}
    keys = [line.split()[2] for line in last.read_text().splitlines() if line.startswith("PublicKey")]
    nets = [line.split()[2] for line in last.read_text().splitlines() if line.startswith("AllowedIPs")]
    if found != set(zip(keys, nets, strict=True)):
        raise RuntimeError("the interface is not as asked")
