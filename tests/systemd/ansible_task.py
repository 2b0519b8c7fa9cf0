"""One task on a node, over SSH, and its answer."""

from __future__ import annotations

from typing import Any

from tests.e2e.ansible_run import Result, play, task
from tests.systemd.node import SystemdNode


def run_task(node: SystemdNode, module: str, check: bool = False, **arguments: Any) -> Result:
    """Run one of our modules on `node`, with its diff."""
    return play(node, node, [task("it", module, arguments, check)], ["-i", str(node.inventory)])["it"]
