"""The module's own time on a node: its process, from the start of Python to its answer, without Ansible around it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab.fleet import ROOT
from tests.lab.node import Node

_RUN_MODULE = """
import json, sys
sys.path[:0] = sys.argv[2:]
from ansible.module_utils.testing import patch_module_args
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack
from ansible_collections.vpnfleet.wireguard.plugins.modules import wg_instance
with open(sys.argv[1], encoding="utf-8") as file:
    instances = json.load(file)["wireguard_instances"]
with patch_module_args({"_packed": pack({"instances": instances})}):
    wg_instance.main()
"""


def _ansible_path() -> str:
    import ansible

    return str(Path(next(iter(ansible.__path__))).parent)


def wg_instance(node: Node, src: Path) -> None:
    """Converge the instances of `src` by the module's process on the node. Raises RuntimeError if that fails."""
    argv = ["/usr/bin/python3", "-c", _RUN_MODULE, str(src), str(ROOT / "collections"), _ansible_path()]
    result = node.run(argv, check=False, timeout=300)
    answer = json.loads(result.stdout.splitlines()[-1]) if result.stdout else {}
    if result.returncode != 0 or not answer.get("changed"):
        raise RuntimeError(f"{result.stdout[-2000:]}{result.stderr[-2000:]}")
