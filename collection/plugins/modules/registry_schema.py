# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_schema
short_description: Make, upgrade and fill the registry, rotate its encryption key
version_added: 0.1.0
description:
  - Makes the registry's tables, or brings them to what this version works with, in one transaction. Two runs at once do
    it once. A schema of a newer version is refused.
  - On request, copies all rows of a SQLite registry into a PostgreSQL one that is empty, in one transaction.
  - On request, encrypts every secret in the registry anew by the first key, also in one transaction. Those that are
    encrypted by it already stay as they are, so that a second run changes nothing.
  - Runs on the controller alone and does nothing on a node. What it changes gets a row in the audit.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.registry
options:
  rotate_encryption_key:
    description:
      - Encrypt by the first of the keys, in E(VPNFLEET_ENCRYPTION_KEY) or in the key file of a SQLite database, what
        one of the others has encrypted.
      - Where it is not set, the variable of the same name holds. It is meant for the command line and taken as it is,
        whatever looks like a template in it.
    type: bool
  copy_from:
    description:
      - The path of a SQLite registry, at the same revision, whose rows are copied into this PostgreSQL one. There, only
        the audit may have rows. Its keys must be among those of E(VPNFLEET_ENCRYPTION_KEY).
      - Where it is not set, the variable of the same name holds, with a path relative to the current folder. It is
        taken as it is too.
    type: path
notes:
  - In check mode it says to which revision it would go and how many secrets it would encrypt, and makes no file.
seealso:
  - module: vpnfleet.wireguard.registry_nodes
"""

EXAMPLES = r"""
- name: Bring the schema up to date
  vpnfleet.wireguard.registry_schema:
  delegate_to: localhost
  run_once: true

# ansible-playbook playbooks/registry.yml, with VPNFLEET_ENCRYPTION_KEY=new,old
- name: Go over to a new encryption key
  vpnfleet.wireguard.registry_schema:
    rotate_encryption_key: true
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
result:
  description: What playbooks/registry.yml publishes by C(set_stats), also when it fails.
  returned: always
  type: dict
  contains:
    operation:
      description: Always V(registry).
      type: str
    status:
      description: How it ended. V(planned) in check mode.
      type: str
      sample: success
    code:
      description:
        - V(200), V(400) for a useless parameter, V(409) where rows would be copied to others, V(500) where the registry
          cannot be used.
      type: int
    changed:
      description: Whether anything changes.
      type: bool
    message:
      description: What changes, or what is wrong, in words.
      type: str
      sample: the schema made, at revision 0004
    schema:
      description: The revisions. Not there when it failed.
      type: dict
      contains:
        before:
          description: The one that was found; null where there was no schema.
          type: str
        after:
          description: The one of this version.
          type: str
    copied:
      description: By table, how many rows were copied. Not there when it failed.
      type: dict
    rotated:
      description: By table and column, in how many rows something was encrypted anew. Not there when it failed.
      type: dict
      sample: {"instance.private_key": 120, "peer.private_key": 0, "peer.preshared_key": 1900}
"""
