# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's agent as the registry knows it, for plugins that have nothing else to do with the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ansible.errors import AnsibleActionFail

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    require_libraries,
)

if MISSING is None:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node

Found = TypeVar("Found")


def agent_of(name: str) -> Agent | None:
    """The agent by which the node of this name is reached; None when that is by SSH. Raises AnsibleActionFail."""
    return _read(lambda session: agents.agent_of(session, name))


def accepted_secrets(name: str) -> list[str]:
    """The secrets that the agent of the node of this name is to take, newest first. Raises AnsibleActionFail."""
    return _read(lambda session: agents.accepted(require_node(session, name)))


def _read(what: Callable[[Session], Found]) -> Found:
    require_libraries()
    try:
        registry = open_registry(make=False)
        try:
            with registry.read() as session:
                return what(session)
        finally:
            registry.close()
    except RegistryError as error:
        raise AnsibleActionFail(str(error)) from None
