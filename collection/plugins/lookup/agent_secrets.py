# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets that a node's agent is to accept, out of the registry."""

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_secrets
short_description: The secrets that nodes' agents accept
version_added: 0.1.0
author:
  - vpnfleet contributors (@vpnfleet)
description:
  - Reads from the registry with which secrets requests to a node's agent may be signed, newest first. There are two
    while the secret changes, and none where C(playbooks/agent.yml) has made none.
  - It is for the role C(vpnfleet.wireguard.node_agent). Use it where the task says C(no_log), and in no C(set_fact).
options:
  _terms:
    description: Names of nodes in the registry.
    required: true
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Deploy the agent
  ansible.builtin.import_role:
    name: vpnfleet.wireguard.node_agent
  vars:
    node_agent_secrets: "{{ lookup('vpnfleet.wireguard.agent_secrets', inventory_hostname) }}"
"""

RETURN = r"""
_raw:
  description: By node, a list of its secrets.
  type: list
  elements: list
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_in_registry import accepted_secrets


class LookupModule(LookupBase):
    """Secrets by node."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[list[str]]:
        """Read them; called by Ansible."""
        self.set_options(var_options=variables, direct=kwargs)
        return [accepted_secrets(str(term)) for term in terms]
