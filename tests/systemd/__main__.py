"""Nodes from the command line, kept in a folder until they are taken down: python -m tests.systemd up | reboot | down.

`up` writes the inventory of the nodes into the folder too, as inventory/systemd.json. `wheels` prints the folder of the
Python libraries that a host of the HTTP interface is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.systemd.api_host import ensure_api_image, ensure_wheels
from tests.systemd.command import CommandFailed
from tests.systemd.image import ImageError, ensure_image
from tests.systemd.kept_nodes import KeptNodes
from tests.systemd.node import NodeError

# What a node is made of: `node` is a server of the fleet, `api` has Debian's packages for the HTTP interface, too.
IMAGES = {"node": ensure_image, "api": ensure_api_image}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "wheels":
            print(ensure_wheels())
            return 0
        with KeptNodes(options.folder) as nodes:
            _do(nodes, options)
    except (ImageError, NodeError, CommandFailed, subprocess.TimeoutExpired) as error:
        print(f"systemd nodes: {error}", file=sys.stderr)
        return 2
    return 0


def _do(nodes: KeptNodes, options: argparse.Namespace) -> None:
    if options.command == "up":
        made = {kind: IMAGES[kind]() for kind in sorted({kind for _, kind in options.nodes})}
        nodes.up({name: made[kind] for name, kind in options.nodes})
        inventory = options.folder / "inventory" / "systemd.json"
        inventory.parent.mkdir(exist_ok=True)
        inventory.write_text(json.dumps(nodes.inventory(), indent=2) + "\n", encoding="utf-8")
    elif options.command == "reboot":
        nodes.node(options.node).reboot(power_cut=options.power_cut)
    elif options.command == "down":
        nodes.down()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.systemd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make nodes, instead of those that the folder had")
    up.add_argument("folder", type=Path)
    up.add_argument(
        "nodes", nargs="+", type=_node, metavar="NAME[=IMAGE]", help=f"IMAGE: {', '.join(IMAGES)}"
    )
    reboot = commands.add_parser("reboot", help="boot a node anew, and wait until it is up")
    reboot.add_argument("--power-cut", action="store_true", help="as if the power went, without a shutdown")
    reboot.add_argument("folder", type=Path)
    reboot.add_argument("node")
    down = commands.add_parser("down", help="remove the nodes and their network")
    down.add_argument("folder", type=Path)
    commands.add_parser("wheels", help="fetch Python's libraries, where they are missing")
    return parser


def _node(text: str) -> tuple[str, str]:
    name, _, kind = text.partition("=")
    kind = kind or "node"
    if kind not in IMAGES:
        raise argparse.ArgumentTypeError(f"{kind} is not one of {', '.join(IMAGES)}")
    return name, kind


if __name__ == "__main__":
    sys.exit(main())
