# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_begin
short_description: Record and claim operations in the registry
version_added: 0.1.0
description:
  - The first step of each of the playbooks C(provision.yml), C(disconnect.yml), C(transfer.yml), C(remove.yml),
    C(drift.yml) and C(reconcile.yml). Turns what is asked into the desired state, in one transaction, and claims the
    operations for this run. Nothing is done on a node.
  - What is asked stands in variables that the playbook of each O(operation) names, such as C(instance). They are taken
    from the extra vars as they are and never evaluated as templates, whatever a customer is called.
  - An instance that another run is at work on is refused. What a killed run has left is taken up.
  - What is refused does not fail this task, for Ansible publishes nothing of those. No node has anything to do then,
    and M(vpnfleet.wireguard.operation_report) publishes why.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.registry
options:
  operation:
    description: What is asked for.
    type: str
    required: true
    choices: [provision, disconnect, transfer, remove, drift, reconcile]
seealso:
  - module: vpnfleet.wireguard.operation_converge
  - module: vpnfleet.wireguard.operation_report
"""

EXAMPLES = r"""
- name: Record the operation
  hosts: localhost, all
  gather_facts: false
  tasks:
    - name: Record what is asked for
      vpnfleet.wireguard.operation_begin:
        operation: disconnect
      run_once: true
      delegate_to: localhost
      delegate_facts: true
"""

RETURN = r"""
operations:
  description: The ids of the operations; none in check mode.
  returned: success
  type: list
  elements: str
nodes:
  description: The names of the nodes that have something to do.
  returned: success
  type: list
  elements: str
ansible_facts:
  description: What the next steps need to know.
  returned: success
  type: dict
  contains:
    vpnfleet_run:
      description: The run.
      type: dict
      contains:
        id:
          description: Its id.
          type: str
        operation:
          description: What is asked for.
          type: str
        hosts:
          description: The hosts that the run may touch.
          type: list
          elements: str
        nodes:
          description: As RV(nodes).
          type: list
          elements: str
        stages:
          description: The same by stage, in order.
          type: dict
        refused:
          description: Why nothing was taken on, with C(reason), C(code) (as an HTTP status) and C(message).
          returned: when the request was refused
          type: dict
"""
