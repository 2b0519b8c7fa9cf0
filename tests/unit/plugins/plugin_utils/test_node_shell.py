"""A shell on a node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleError

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.node_shell import NodeShell
from tests.checkout import ROOT
from tests.unit.plugins.plugin_utils import shells_of_hosts

#: Says how it was called, and what was to be run there. A line with the word that Ansible waits for is not passed on.
SSH = r"""#!/bin/sh
printf '%s\n' "$*" | grep -o 'BECOME-SUCCESS-[a-z]*' | head -n 1
for word; do printf '%s\n' "$word"; done | sed 's/BECOME-SUCCESS-[a-z]*/done/'
"""


def never(*_args: Any, **_named: Any) -> dict[str, Any]:
    raise AssertionError("it was run")


def test_nothing_is_run_where_debug_output_would_show_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_DEBUG", True)
    with pytest.raises(AnsibleError, match="ANSIBLE_DEBUG"):
        NodeShell(SimpleNamespace(_low_level_execute_command=never)).run("true", "")


def test_each_host_is_reached_as_its_own_variables_say(tmp_path: Path) -> None:
    """Also where those of another host, which was there before it, say otherwise; alike ones share what was found."""
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH, encoding="utf-8")
    ssh.chmod(0o755)
    anna = {
        "ansible_user": "anna",
        "ansible_port": 2201,
        "ansible_become": True,
        "ansible_become_method": "sudo",
    }
    hosts: list[dict[str, Any]] = [
        {**anna, "ansible_host": "192.0.2.1"},
        {"ansible_user": "bert", "ansible_port": 2202, "ansible_host": "192.0.2.2"},
        {**anna, "ansible_host": "192.0.2.3"},
        {**anna, "ansible_host": "192.0.2.4", "ansible_become_user": "carl"},
        {**anna, "ansible_host": "192.0.2.5", "ansible_port": 2205},
    ]
    both = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}
    asked = [{**both, **one, "inventory_hostname": f"host{number}"} for number, one in enumerate(hosts * 2)]
    done = subprocess.run(
        [sys.executable, "-m", shells_of_hosts.__name__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {code for code, _printed in answer["told"]} == {0}
    found = [_reached(printed) for _code, printed in answer["told"]]
    assert found[:5] == found[5:]
    assert found[:5] == [
        ("192.0.2.1", "anna", "2201", "root"),
        ("192.0.2.2", "bert", "2202", None),
        ("192.0.2.3", "anna", "2201", "root"),
        ("192.0.2.4", "anna", "2201", "carl"),
        ("192.0.2.5", "anna", "2205", "root"),
    ]
    assert answer["models"] == 4


def _reached(printed: str) -> tuple[str, str, str, str | None]:
    """Where ssh was to go, as whom, by which port, and who is become there."""
    *options, host, command = printed.splitlines()
    named = dict(word.split("=", 1) for word in options if "=" in word)
    become = command.partition("-u ")[2].split(" ", 1)[0] if "sudo" in command else None
    return host, named["User"].strip('"'), named["Port"], become
