"""A shell on a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleError

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.node_shell import NodeShell


def never(*_args: Any, **_named: Any) -> dict[str, Any]:
    raise AssertionError("it was run")


def test_nothing_is_run_where_debug_output_would_show_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_DEBUG", True)
    with pytest.raises(AnsibleError, match="ANSIBLE_DEBUG"):
        NodeShell(SimpleNamespace(_low_level_execute_command=never)).run("true", "")
