# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_agent
short_description: What the registry has to do with deploying agents
version_added: 0.1.0
description:
  - The steps of C(playbooks/agent.yml) between those of the role C(vpnfleet.wireguard.node_agent). Secrets and
    certificates change in such an order that controller and node agree wherever a run ends.
  - No secret is in an argument or an answer. Changes of how a node is reached are audited.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.registry
options:
  step:
    description:
      - V(begin), on the controller, reads the variables C(node) or C(nodes), C(state), C(rotate) and C(agent_port) as
        data, chooses the nodes, and makes a secret where there is none or, for C(rotate), the next one. Where an
        earlier run has made one and was broken off, that one is completed, and the result says so. What is refused is
        told by V(report).
      - V(expect) has O(certificate) count as the node's before its agent shows it.
      - V(confirm) asks the agent how it is, with the newest secret and no other certificate than O(certificate). When
        it answers, the node is reached by it from now on; older secrets and certificates are forgotten.
      - V(forget) has the node reached by SSH.
      - V(report), on the controller, publishes by C(set_stats) what came of it.
    type: str
    required: true
    choices: [begin, expect, confirm, forget, report]
  run:
    description: The fact C(vpnfleet_agents) of localhost, as V(begin) sets it. All other steps but V(expect) need it.
    type: dict
  certificate:
    description: What the agent shows in TLS, in PEM.
    type: str
  wait:
    description: For so many seconds an agent that does not answer is asked again.
    type: int
    default: 0
seealso:
  - plugin: vpnfleet.wireguard.agent_secrets
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Choose the nodes and see to their secrets
  vpnfleet.wireguard.registry_agent:
    step: begin
  run_once: true
  delegate_to: localhost
  delegate_facts: true

- name: Ask the agent, and reach the node by it
  vpnfleet.wireguard.registry_agent:
    step: confirm
    run: "{{ hostvars.localhost.ansible_facts.vpnfleet_agents }}"
    certificate: "{{ node_agent_certificate }}"
    wait: 30
"""

RETURN = r"""
result:
  description: What is published - C(operation), C(status), C(changed), C(message), and of each node the same in
    C(nodes).
  returned: of the step report
  type: dict
undone:
  description: What was asked for and is not done, in words.
  returned: of the step report
  type: list
  elements: str
"""
