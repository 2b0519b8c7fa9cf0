# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_converge
short_description: Do on a node what a run's operations want of it
version_added: 0.1.0
description:
  - Reads from the registry what the operations of a run want of this node in a stage, does it by one call of
    M(vpnfleet.wireguard.wg_instance), whatever the number of instances, and writes down how it went.
  - Keys go from the registry to the node without being variables on the way.
  - A node that cannot be reached does not fail the task. It is written down, and M(vpnfleet.wireguard.operation_report)
    tells it.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.registry
options:
  run:
    description: The run, as M(vpnfleet.wireguard.operation_begin) returns it.
    type: dict
    required: true
  stage:
    description: The stage. A transfer has V(arrive) and V(leave), all others V(apply).
    type: str
    default: apply
    choices: [apply, arrive, leave]
seealso:
  - module: vpnfleet.wireguard.operation_begin
  - module: vpnfleet.wireguard.wg_instance
"""

EXAMPLES = r"""
- name: Take the instances down
  vpnfleet.wireguard.operation_converge:
    run: "{{ hostvars.localhost.ansible_facts.vpnfleet_run }}"
"""

RETURN = r"""
instances:
  description: What M(vpnfleet.wireguard.wg_instance) did; see there.
  returned: when the node had something to do and could be reached
  type: list
  elements: dict
reached:
  description: Whether the node could be reached.
  returned: when the node had something to do
  type: bool
"""
