# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_report
short_description: End the operations of a run and publish their result
version_added: 0.1.0
description:
  - The last step of each operation. Says what was done and what not, to the reader, to the registry (the row of the
    operation and the audit) and by C(set_stats) as C(vpnfleet), which AWX shows as artifacts.
  - Does not fail when something that was asked for is not done, for Ansible publishes nothing of a task that fails. It
    returns RV(undone), by which the playbook's next task fails. What could not be done because a node cannot be reached
    stays recorded as pending, and the next C(reconcile.yml) of that node does it.
  - After a look at nodes (C(drift.yml)), the extra var C(report_dir) makes it write C(drift.html) and C(drift.json)
    into that folder of the controller, also in check mode, and with C(fail_on_drift) drift stands under RV(undone). In
    diff mode it shows what runs and what should run. Of a look that was asked for over HTTP, it writes nothing.
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
"""

EXAMPLES = r"""
- name: Publish the result
  vpnfleet.wireguard.operation_report:
    run: "{{ hostvars.localhost.ansible_facts.vpnfleet_run }}"
  run_once: true
  register: vpnfleet_report

- name: Fail when something is not done
  ansible.builtin.fail:
    msg: "{{ vpnfleet_report.msg }}"
  run_once: true
  when: vpnfleet_report.undone | length > 0
"""

RETURN = r"""
result:
  description: What is published.
  returned: always
  type: dict
  contains:
    operation:
      description: What was asked for.
      type: str
    status:
      description: V(success), V(partial_success), V(error), or V(planned) in check mode.
      type: str
    changed:
      description: Whether anything changed.
      type: bool
    operations:
      description: One result per operation, each with C(operation_id), C(instance), C(status), C(code) (as an HTTP
        status), C(pending), C(message) and what is particular to its kind. Long lists are cut short, and very many
        results left out; then C(truncated) is true there.
      type: list
      elements: dict
    truncated:
      description: Whether results are left out. The registry has them all.
      returned: when they are
      type: bool
    operations_count:
      description: How many there are.
      returned: when some are left out
      type: int
    report:
      description: The paths of the files, as C(html) and C(json).
      returned: after a look whose report was written
      type: dict
    code:
      description: Why nothing was recorded, as an HTTP status, 400, 404 or 409.
      returned: when the request was refused
      type: int
    message:
      description: The same in words.
      returned: when the request was refused
      type: str
undone:
  description: What was asked for and is not done, in sentences. In check mode, which nodes could not be looked at. With
    C(fail_on_drift), the nodes that have drift.
  returned: always
  type: list
  elements: str
diff:
  description: By node and interface, what runs and what should, in Ansible's form. It is cut short when it is long.
  returned: after a look in diff mode
  type: list
  elements: dict
"""
