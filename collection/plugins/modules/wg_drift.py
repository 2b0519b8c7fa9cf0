#!/usr/bin/python

# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wg_drift
short_description: Find and repair the difference between the peers that should be and those that are
version_added: 0.1.0
description:
  - Compares the peers of interfaces with what runs, and what runs with the config files. By default it only looks.
  - With one of the three switches it repairs. Peers stand for themselves; one that cannot be put in place is reported
    under C(reconciled.errors), and the rest is done. Interfaces do too; when one cannot be repaired at all, the
    others are, and the task fails at the end.
  - When an interface cannot be read in full, the task fails and nothing is concluded or changed.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes
  - vpnfleet.wireguard.attributes.packed
options:
  interface:
    description: The interface to look at. One of O(interface), O(interfaces) and O(src) is needed.
    type: str
  state: &state
    description:
      - V(present), it should be up, with its peers, and come back at boot.
      - V(absent), nothing should be there - no interface, no config file, no unit that starts at boot. What is there is
        reported and left alone, whatever the switches say. The other parameters do not count.
      - V(any), it is not looked at; for what O(complete) should not report.
    type: str
    choices: [present, absent, any]
    default: present
  peers: &peers
    description:
      - The peers that should be, all of them. It must be there when O(state=present), and may be an empty list.
      - A peer's endpoint does not count, since devices roam.
    type: list
    elements: dict
    suboptions:
      public_key:
        description: The device's public key in base64.
        type: str
        required: true
      preshared_key:
        description: A secret shared with the device, in base64. When it is not set, there should be none.
        type: str
      allowed_ips:
        description: The networks that belong to the device.
        type: list
        elements: str
      persistent_keepalive:
        description: Seconds between keepalive packets; V(0), or not set, is off.
        type: int
      endpoint:
        description: Where the peer is to be reached, C(host:port). Used when the peer is added.
        type: str
      name:
        description: What the peer is called; repeated in the report.
        type: str
      peer_id:
        description: What the registry calls the peer; repeated in the report.
        type: str
  public_key: &public_key
    description: The public key that the interface should have, in base64. When it is not set, any is fine.
    type: str
  listen_port: &listen_port
    description: The UDP port that the interface should have. When it is not set, any is fine.
    type: int
  addresses: &addresses
    description:
      - The addresses that the interface should have, each with its prefix length. When it is not set, any are fine.
      - Link-local ones do not count.
    type: list
    elements: str
  mtu: &mtu
    description: The MTU that the interface should have, in bytes. When it is not set, any is fine.
    type: int
  interfaces:
    description: Many interfaces, to be looked at in one call.
    type: list
    elements: dict
    suboptions:
      interface:
        description: The interface.
        type: str
        required: true
      state: *state
      peers: *peers
      public_key: *public_key
      listen_port: *listen_port
      addresses: *addresses
      mtu: *mtu
  src:
    description:
      - A file on the controller, JSON or YAML, plain or encrypted by ansible-vault, that holds the list for
        O(interfaces), or a mapping with the list under C(interfaces) or C(wireguard_instances) (there with the
        parameters of M(vpnfleet.wireguard.wg_instance)). It is read as data, never as a template.
    type: path
  complete:
    description:
      - Whether the interfaces that are named are all that there should be. Any other WireGuard interface of the node
        that is called as instances are (C(wg) and a number) is then reported, and left alone, whatever the switches
        say. So are the config file and the unit enabled at boot of one that does not run.
    type: bool
    default: false
  reconcile_missing:
    description: Add peers that are missing.
    type: bool
    default: false
  reconcile_mismatched:
    description: Bring peers that differ to what they should be.
    type: bool
    default: false
  remove_unknown:
    description: Remove peers that should not be there.
    type: bool
    default: false
  max_removals:
    description: How many peers O(remove_unknown) may remove from one interface; 10 when it is not set.
    type: int
  config_dir:
    description: The folder of the config files.
    type: path
    default: /etc/wireguard
seealso:
  - module: vpnfleet.wireguard.wg_instance
"""

EXAMPLES = r"""
- name: Look for drift
  vpnfleet.wireguard.wg_drift:
    interface: wg7
    peers:
      - public_key: 4Q84bxy9zjVyV4cBgtWqgpAVQVIHgTYrwwv0QNaIzkA=
        allowed_ips: [10.7.0.2/32]
        name: laptop
  register: report

- name: See whether wg7 is gone for good, and whether there is anything else
  vpnfleet.wireguard.wg_drift:
    interfaces:
      - interface: wg7
        state: absent
    complete: true

- name: Put back what is missing and mend what differs; leave unknown peers alone
  vpnfleet.wireguard.wg_drift:
    src: "instances/{{ inventory_hostname }}.json"
    reconcile_missing: true
    reconcile_mismatched: true
"""

RETURN = r"""
has_drift:
  description: Whether anything differs (before a repair).
  returned: success
  type: bool
unknown_peers:
  description: Peers that run and should not, each with C(interface), C(public_key), C(allowed_ips), C(endpoint) and
    C(persistent_keepalive). The four lists hold at most 2000 entries altogether.
  returned: success
  type: list
  elements: dict
missing_peers:
  description: Peers that should run and do not, each with C(interface), C(public_key), C(name), C(allowed_ips) and
    C(peer_id).
  returned: success
  type: list
  elements: dict
mismatched_peers:
  description: Peers that run otherwise than they should, each with C(interface), C(public_key), C(name), C(peer_id)
    and C(mismatches), a list of C(field), C(expected) and C(actual).
  returned: success
  type: list
  elements: dict
interface_issues:
  description: What is wrong with an interface as a whole, each with C(interface), C(field), C(expected) and C(actual).
    Fields are C(interface), C(public_key), C(listen_port), C(addresses), C(mtu), C(routes) for those that peers need,
    C(enabled at boot), C(file mode), and C(file) for a config file that says something else than what runs. Of
    C(interface), C(expected) is V(up), and C(actual) V(missing) or V(down); or C(expected) is V(absent), and C(actual)
    V(up), V(down), V(enabled at boot), V(unit active) or V(file). C(actual) begins with C(not WireGuard's) when
    something else bears the name.
  returned: success
  type: list
  elements: dict
summary:
  description: The exact numbers - C(unknown_count), C(missing_count), C(mismatched_count), C(interface_count) and
    C(total_issues).
  returned: success
  type: dict
truncated:
  description: The lists are cut short; the summary is exact.
  returned: when they are
  type: bool
reconciled:
  description: What was repaired - C(added), C(updated) and C(removed) public keys, and C(errors), each with C(peer),
    C(interface), C(action) (C(add), C(update) or C(remove)) and C(error). A peer that cannot be served holds up no
    other. Where a whole interface cannot be, C(peer) is empty.
  returned: when one of the switches is on
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift_repair
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.argument_spec import drift_spec
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters


def main() -> None:
    module = AnsibleModule(argument_spec=drift_spec(), supports_check_mode=True)
    try:
        result = drift_repair.run(parameters(module.params), module.check_mode, module._diff)
    except WireGuardError as error:
        module.fail_json(msg=str(error))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
