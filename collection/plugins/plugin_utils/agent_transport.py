# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules on a node through its agent, in the place of Ansible's connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    ANSWER_SECONDS,
    Agent,
    AgentError,
    AgentRefused,
    AgentUnreachable,
    call,
)

_UNAUTHORIZED = 401


def run_module(
    agent: Agent,
    again: Callable[[], Agent | None],
    module: str,
    arguments: Mapping[str, Any],
    check: bool,
    diff: bool,
    timeout: float = ANSWER_SECONDS,
) -> dict[str, Any]:
    """Run a module (its full name, or that within the collection) by `agent`; returns its answer, which takes `timeout`
    seconds at the most.

    Secret and certificate change while calls are on their way. So, when nothing was done because of them, it is asked
    once more with what `again` tells, if that is something else. Raises AgentError.
    """
    name = module.rpartition(".")[2]
    try:
        return call(agent, name, arguments, check, diff, timeout)
    except AgentError as error:
        if not is_away(error):
            raise
        newer = again()
        if newer is None or newer == agent:
            raise
    return call(newer, name, arguments, check, diff, timeout)


def is_away(error: AgentError) -> bool:
    """Whether this is to an agent what "unreachable" is to SSH: not there, not the one, or no key to its door."""
    return isinstance(error, AgentUnreachable) or (
        isinstance(error, AgentRefused) and error.status == _UNAUTHORIZED
    )
