#!/usr/bin/python

# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wg_info
short_description: What WireGuard runs on a node
version_added: 0.1.0
description:
  - Returns the WireGuard interfaces of a node with their peers, addresses, routes, config files and units.
  - No secret is in the answer.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.info
options:
  interfaces:
    description: The interfaces to look at; those that do not exist are left out. When it is not set, all of them.
    type: list
    elements: str
  peers:
    description: Whether peers are listed (at most 2000 in the whole answer). Their number is always there.
    type: bool
    default: true
  config_dir:
    description: The folder of the config files.
    type: path
    default: /etc/wireguard
seealso:
  - module: vpnfleet.wireguard.wg_drift
"""

EXAMPLES = r"""
- name: See what runs
  vpnfleet.wireguard.wg_info:
  register: wireguard

- name: Name the devices that were here within three minutes
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.peers | selectattr('seconds_since_handshake', 'number')
      | selectattr('seconds_since_handshake', 'lt', 180) | map(attribute='public_key') | list }}"
  loop: "{{ wireguard.interfaces }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
interfaces:
  description: The interfaces.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The interface.
      type: str
      returned: success
    public_key:
      description: Its public key.
      type: str
      returned: success
    listen_port:
      description: Its UDP port.
      type: int
      returned: success
    fwmark:
      description: Mark of its encrypted packets, 0 for none.
      type: int
      returned: success
    up:
      description: Whether it is up.
      type: bool
      returned: success
    mtu:
      description: Its MTU in bytes.
      type: int
      returned: success
    addresses:
      description: Its addresses with prefix length.
      type: list
      elements: str
      returned: success
    routes:
      description: Routes through it, each with C(network) and C(table).
      type: list
      elements: dict
      returned: success
    config_file:
      description: The path of its config file, null when there is none.
      type: str
      returned: success
    file_difference:
      description: In which respect the config file says something else than what runs; empty when in none.
      type: str
      returned: success
    enabled:
      description: Whether its unit starts at boot; null where units have no part.
      type: bool
      returned: success
    active:
      description: Whether its unit is active; null where units have no part.
      type: bool
      returned: success
    peer_count:
      description: How many peers it has.
      type: int
      returned: success
    truncated:
      description: The list of peers is cut short; the count is exact.
      type: bool
      returned: when O(peers) is true
    peers:
      description: Its peers, each with C(public_key), C(allowed_ips), C(endpoint), C(persistent_keepalive),
        C(has_preshared_key), C(latest_handshake) (seconds since 1970, 0 for never), C(seconds_since_handshake),
        C(received) and C(sent) (bytes).
      type: list
      elements: dict
      returned: when O(peers) is true
unreadable:
  description: Interfaces that are there and could not be read, with the reason.
  returned: success
  type: dict
wireguard_tools:
  description: The version of wg.
  returned: success
  type: str
userspace:
  description: Whether wireguard-go is installed.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import info
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.argument_spec import info_spec
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError


def main() -> None:
    module = AnsibleModule(argument_spec=info_spec(), supports_check_mode=True)
    try:
        result = info.run(module.params)
    except WireGuardError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
