"""`make bench`: prints one JSON object and keeps it under var/bench/. Progress goes to stderr.

Usage: python -m tests.bench [--runs N] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import copy
import datetime
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench import agent, fleet_data, http, looks, on_node, playbook, processor, registry
from tests.bench.side_by_side import Comparison, Figure, compare
from tests.lab.errors import LabError
from tests.lab.fleet import ROOT, Lab
from tests.lab.node import Node

BIG = 10_000
FOLDER = ROOT / "var" / "bench"
RAW = "a play with one task, raw: wg show all dump, on the same node"


def gone(node: Node, interface: str) -> None:
    """Take an interface down, if it is there, with its file."""
    node.run(["ip", "link", "delete", "dev", interface], check=False)
    node.run(["rm", "-f", f"/etc/wireguard/{interface}.conf"])
    while node.run(["test", "-e", f"/run/wireguard/{interface}.sock"], check=False).returncode == 0:
        pass


def fresh_peers(lab: Lab, folder: Path, runs: int) -> Comparison:
    """1,000 peers from nothing, against wg-quick up of the same."""
    node = lab.nodes[0]
    entry = fleet_data.instance("wgb0", 52000, "10.64.0.0/16", 1000)
    src = fleet_data.write(folder / "fresh.json", [entry])

    def wg_quick_up() -> None:
        node.run(["wg-quick", "up", "wgb1"], timeout=300)

    def reset() -> None:
        gone(node, "wgb0")
        node.write(
            "/etc/wireguard/wgb1.conf", fleet_data.wg_quick_file({**entry, "listen_port": 52001}), 0o600
        )
        node.run(["ip", "link", "delete", "dev", "wgb1"], check=False)
        while node.run(["test", "-e", "/run/wireguard/wgb1.sock"], check=False).returncode == 0:
            pass

    result = compare(
        "fresh_1000_peers",
        0.35,
        ("wg_instance's own process on the node", lambda: on_node.wg_instance(node, src)),
        ("wg-quick up of the same peers", wg_quick_up),
        runs,
        between=reset,
    )
    gone(node, "wgb0")
    gone(node, "wgb1")
    return result


def big_instance(lab: Lab, folder: Path, runs: int) -> list[Comparison]:
    """10,000 peers unchanged, one of them changed, and their drift, each against the bare reading of the node."""
    entry = fleet_data.instance("wgb0", 52000, "10.64.0.0/16", BIG)
    other = copy.deepcopy(entry)
    other["peers"][BIG // 2]["persistent_keepalive"] = 30
    same = fleet_data.write(folder / "same.json", [entry])
    changed = fleet_data.write(folder / "changed.json", [other])
    module = "vpnfleet.wireguard.wg_instance"
    plays = {path: playbook.play(folder, path.stem, {module: {"src": str(path)}}) for path in (same, changed)}
    drift = playbook.play(folder, "drift", {"vpnfleet.wireguard.wg_drift": {"src": str(same)}})
    raw = playbook.play(folder, "raw", playbook.RAW_DUMP)
    baseline = (RAW, lambda: playbook.run(lab, raw))
    raw_with_variables = playbook.play(folder, "raw_variables", playbook.RAW_DUMP, vars_file=same)
    turns = itertools.cycle((plays[changed], plays[same]))

    playbook.run(lab, plays[same], changed=True)
    results = [
        compare(
            "10000_peers_unchanged",
            2.0,
            (
                "a play with wg_instance, 10,000 peers, nothing to do",
                lambda: playbook.run(lab, plays[same], False),
            ),
            baseline,
            runs,
        ),
        compare(
            "10000_peers_drift",
            1.7,
            ("a play with wg_drift, 10,000 peers, no drift", lambda: playbook.run(lab, drift, False)),
            baseline,
            runs,
        ),
        compare(
            "10000_peers_one_changed",
            2.0,
            (
                "a play with wg_instance, 10,000 peers, one changed",
                lambda: playbook.run(lab, next(turns), True),
            ),
            baseline,
            runs,
        ),
    ]
    # For the record: the same by Ansible variables, whose loading and templating both sides pay for or not.
    task = {module: {"instances": "{{ wireguard_instances }}"}}
    by_variables = playbook.play(folder, "variables", task, vars_file=same)
    playbook.run(lab, plays[same])
    results.append(
        compare(
            "10000_peers_unchanged_from_variables",
            2.0,
            ("the same from a vars_file instead of src", lambda: playbook.run(lab, by_variables, False)),
            ("the raw play with the same vars_file", lambda: playbook.run(lab, raw_with_variables)),
            runs,
        )
    )
    gone(lab.nodes[0], "wgb0")
    return results


def many_instances(lab: Lab, folder: Path, runs: int) -> Comparison:
    """100 unchanged instances in one call, against one of them."""
    instances = [
        fleet_data.instance(f"wgb{number}", 52000 + number, f"10.64.{number}.0/24", 5)
        for number in range(100)
    ]
    module = "vpnfleet.wireguard.wg_instance"
    every = fleet_data.write(folder / "every.json", instances)
    one = fleet_data.write(folder / "one.json", instances[:1])
    play_every = playbook.play(folder, "every", {module: {"src": str(every)}})
    play_one = playbook.play(folder, "one", {module: {"src": str(one)}})
    playbook.run(lab, play_every, changed=True)
    result = compare(
        "100_instances_unchanged",
        2.0,
        ("a play with 100 unchanged instances in one call", lambda: playbook.run(lab, play_every, False)),
        ("a play with one of them", lambda: playbook.run(lab, play_one, False)),
        runs,
    )
    for entry in instances:
        gone(lab.nodes[0], entry["name"])
    return result


Result = Comparison | Figure
BENCHES: dict[str, Callable[[Lab, Path, int], Result | Sequence[Result]]] = {
    "fresh": fresh_peers,
    "big": big_instance,
    "many": many_instances,
    "disconnect": registry.disconnect,
    "remove": registry.remove,
    "drift": registry.drift,
    "drift_fleet": looks.fleet,
    "drift_big_node": looks.big_node,
    "allocation": registry.allocation,
    "transfer": registry.transfer,
    "agent_syncconf": agent.syncconf,
    "http_disconnect": http.disconnect,
    "http_burst": http.burst,
    "http_reads": http.reads,
    "http_memory": http.memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Ratios, measured side by side."
    )
    parser.add_argument(
        "--runs", type=int, default=7, help="timed runs of each side; 5 at least (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=list(BENCHES), default=list(BENCHES))
    arguments = parser.parse_args()
    runs = max(5, arguments.runs)
    results: list[Result] = []
    failed = False
    try:
        with processor.counted(), Lab(name="bench", nodes=2, devices=1) as lab:
            for name in arguments.only:
                try:
                    found = BENCHES[name](lab, FOLDER / "data", runs)
                except Exception as error:
                    # What others have measured is worth having all the same.
                    print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
                    failed = True
                    continue
                results += found if isinstance(found, Sequence) else [found]
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    report = {
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "ansible_core": version("ansible-core"),
        },
        "ratios": {result.name: result.as_json() for result in results if isinstance(result, Comparison)},
        "figures": {result.name: result.as_json() for result in results if isinstance(result, Figure)},
    }
    text = json.dumps(report, indent=2)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stamp = report["measured_at"]
    (FOLDER / f"{str(stamp).replace(':', '')}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
