"""The lab as Ansible sees it: its nodes in the group `nodes`, with addresses, key and known host keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.lab.node import Node


def inventory_text(nodes: Sequence[Node], ssh_key: Path, known_hosts: Path) -> str:
    """A YAML inventory. Strings are written in JSON's form, which is YAML's too, whatever a path holds."""
    lines = ["---", "nodes:", "  hosts:" if nodes else "  hosts: {}"]
    for node in nodes:
        lines += [f"    {node.name}:", f"      ansible_host: {node.address}"]
    # The inner quotes are for ssh, which else takes a path with a space for two files.
    options = (
        f"-o 'UserKnownHostsFile=\"{known_hosts}\"' -o GlobalKnownHostsFile=/dev/null"
        " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    )
    lines += [
        "  vars:",
        "    ansible_user: root",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_private_key_file: {json.dumps(str(ssh_key))}",
        f"    ansible_ssh_common_args: {json.dumps(options)}",
    ]
    return "\n".join(lines) + "\n"
