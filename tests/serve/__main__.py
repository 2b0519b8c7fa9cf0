"""The HTTP interface on the lab with SQLite, until ^C: python -m tests.serve.

Builds the lab, registers its nodes, provisions one customer, makes API keys, and prints calls to try. What it made is
in the directory: serve.json has the address, the keys and the names, for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.demo.fleet import Fleet
from tests.demo.playbook import Operator, shown
from tests.demo.report import StepFailed
from tests.lab.fleet import ROOT, Lab
from tests.lab.lock import Taken, exclusive
from tests.lab.signals import Ended, ignore_signals, signals_as_exceptions
from tests.serve.process import make_key, start

CUSTOMER = "user@example.com"
_SCOPES = ("billing", "ops")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("serve: needs root, as it makes network namespaces: sudo make serve", file=sys.stderr)
        return 2
    directory: Path = options.directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lab = Lab(options.name, nodes=2, devices=1)
    try:
        with signals_as_exceptions(), exclusive(f"serve-{options.name}", wait=False):
            try:
                return _serve(lab, directory, options.port)
            finally:
                ignore_signals()
                lab.down()
    except Ended:
        return 0
    except Taken:
        print(
            f"serve: one is up already on the lab {options.name}; end it, or have another one beside it: "
            "python -m tests.serve --name other --port 0 --directory var/other",
            file=sys.stderr,
        )
        return 2
    except (StepFailed, RuntimeError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1


def _serve(lab: Lab, directory: Path, port: int) -> int:
    print("Building the lab: two nodes, one device …", flush=True)
    lab.down()
    lab.up()
    fleet = Fleet(lab, directory)
    fleet.write()
    operator = Operator(fleet.inventory, fleet.environment(), directory, lambda _task: None)
    print("Registering the nodes, and provisioning a customer …", flush=True)
    operator.run("nodes", "-e", f"nodes_file={shlex.quote(shown(fleet.nodes))}")
    wanted = {"instance": CUSTOMER, "node": lab.nodes[0].name, "peers": [{"name": "phone"}]}
    operator.run("provision", "-e", fleet.write_request("customer", wanted))
    environment = {
        **fleet.environment(),
        "VPNFLEET_INVENTORY": str(fleet.inventory),
        "VPNFLEET_PORT": str(port),
        "VPNFLEET_LOG_FORMAT": "text",
    }
    keys = {scope: make_key(environment, f"serve-{scope}", scope) for scope in _SCOPES}
    log = directory / "server.log"
    log.unlink(missing_ok=True)
    server, url = start(environment, log)
    try:
        told: dict[str, Any] = {
            "url": url,
            "keys": keys,
            "customer": CUSTOMER,
            "nodes": [node.name for node in lab.nodes],
        }
        path = directory / "serve.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        print(_try_this(url, keys, lab, fleet, shown(log)), flush=True)
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def _try_this(url: str, keys: dict[str, str], lab: Lab, fleet: Fleet, log: str) -> str:
    registry = f"VPNFLEET_DATABASE_URL={shlex.quote(fleet.environment()['VPNFLEET_DATABASE_URL'])}"
    on_node = f"python -m tests.lab exec --name {lab.name} {lab.nodes[0].name} --"
    body = json.dumps({"email": CUSTOMER})
    return f"""
Serving on {url} ; the log is in {log} ; ^C ends it and takes the lab down.

  curl -X POST {url}/api/disconnect_instance/ \\
    -H 'X-API-Key: {keys["billing"]}' -H 'Content-Type: application/json' -d '{body}'

  curl -H 'Authorization: Bearer {keys["ops"]}' {url}/api/drift/nodes

What runs on a node, and drift made by hand, for /api/drift to find (with the venv: . var/venv/bin/activate):

  {on_node} wg show
  {on_node} sh -c 'wg set wg1 peer $(wg show wg1 peers) remove'

A key of your own:

  {registry} python -m api_shim keys create mine --scope read

{url}/docs lists all calls.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.serve", description="Serve HTTP on the lab.")
    parser.add_argument("--name", default="serve", help="the lab's name (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / "var" / "serve",
        help="where registry, keys and logs go (default: var/serve of the checkout)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
