# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_drift
short_description: Compare nodes with the registry, and mend one when that is asked for
version_added: 0.1.0
description:
  - When the run is one of C(drift), looks at all its nodes at once. It belongs into a play on C(localhost, all), with
    C(run_once) and C(delegate_to) C(localhost). Each node is read by one shell over the connection that its variables
    name, without Python there, and compared on the controller with what the registry says of it. It takes root on the
    node. As many are read at a time as C(forks) says; one that does not answer in time is an error in the report and
    holds up no other.
  - When the run is one of C(reconcile), this is a task on the node. One call of M(vpnfleet.wireguard.wg_drift)
    compares, and puts the peers right that the run's switches allow, each on its own. What concerns whole interfaces is
    then done by one call of M(vpnfleet.wireguard.wg_instance), if there is anything of that kind - interfaces that are
    missing or set up otherwise, those that the node has not confirmed yet, and those that are still to be taken down.
  - What another run is at work on is left alone. Interfaces that the registry does not know are reported, and left
    alone as well.
  - A node that cannot be read does not fail the task. It is written down, and M(vpnfleet.wireguard.operation_report)
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
seealso:
  - module: vpnfleet.wireguard.operation_begin
  - module: vpnfleet.wireguard.wg_drift
  - module: vpnfleet.wireguard.wg_instance
"""

EXAMPLES = r"""
- name: Compare the nodes with the registry
  vpnfleet.wireguard.operation_drift:
    run: "{{ hostvars.localhost.ansible_facts.vpnfleet_run }}"
  run_once: true
  delegate_to: localhost
  delegate_facts: true

- name: Bring this node to what the registry says
  vpnfleet.wireguard.operation_drift:
    run: "{{ hostvars.localhost.ansible_facts.vpnfleet_run }}"
"""

RETURN = r"""
reached:
  description: Whether the node could be reached.
  returned: in a reconcile
  type: bool
nodes:
  description: By the name of each node, C(reached), and C(summary) when it could be read.
  returned: in a look
  type: dict
summary:
  description: How many entries the report has, by kind. The report itself is published by
    M(vpnfleet.wireguard.operation_report).
  returned: in a reconcile, when the node could be read
  type: dict
"""
