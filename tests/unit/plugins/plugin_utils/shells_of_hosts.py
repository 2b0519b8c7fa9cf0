"""Runs a command on hosts by NodeShells, one after the other: their variables come as JSON on stdin, and what was
printed goes as JSON to stdout. A program of its own, for Ansible's loader replaces how collections are imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

COLLECTIONS = Path(__file__).resolve().parents[4] / "collections"


class Action(ActionBase):  # type: ignore[misc]
    """Of a task that looks at many hosts."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: it is asked for shells alone."""
        return {}


def main() -> None:
    """As the module says."""
    init_plugin_loader([str(COLLECTIONS)])
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.node_shell import NodeShells

    loader, task = DataLoader(), Task.load({"action": "ansible.builtin.ping"})
    shells = NodeShells(Action(task, None, PlayContext(), loader, Templar(loader=loader), None))
    told = [shells.shell(variables).run("true", "")[:2] for variables in json.load(sys.stdin)]
    print(json.dumps({"told": told, "models": len(shells._models)}))


if __name__ == "__main__":
    main()
