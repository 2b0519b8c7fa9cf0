#!/usr/bin/python

# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wg_peer
short_description: Peers of a running WireGuard interface
version_added: 0.1.0
description:
  - Adds, changes and removes single peers of an interface, live and in its config file, and touches no other.
  - Fields that are not set stay as they are on a peer that exists.
  - The whole peer list of an interface is the business of M(vpnfleet.wireguard.wg_instance).
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes
  - vpnfleet.wireguard.attributes.packed
options:
  interface:
    description: The interface, which must be up.
    type: str
    required: true
  state:
    description: Whether the peer, or each of O(peers) that does not say so itself, shall be there.
    type: str
    choices: [present, absent]
    default: present
  public_key:
    description: The device's public key in base64. One of O(public_key) and O(peers) is needed.
    type: str
  preshared_key: &preshared_key
    description: A secret shared with the device, in base64. An empty text removes it.
    type: str
  allowed_ips: &allowed_ips
    description: The networks that belong to the device. They must not overlap with those of another peer.
    type: list
    elements: str
  persistent_keepalive: &persistent_keepalive
    description: Seconds between keepalive packets; V(0) is off.
    type: int
  endpoint: &endpoint
    description: Where the peer is to be reached, C(host:port). Leave it out for customers' devices.
    type: str
  peers:
    description: Many peers, to be done in one call.
    type: list
    elements: dict
    suboptions:
      public_key:
        description: The device's public key in base64.
        type: str
        required: true
      state:
        description: Whether the peer shall be there. When it is not set, O(state) holds.
        type: str
        choices: [present, absent]
      preshared_key: *preshared_key
      allowed_ips: *allowed_ips
      persistent_keepalive: *persistent_keepalive
      endpoint: *endpoint
      name:
        description: What the peer is called. It is not stored on the node.
        type: str
      peer_id:
        description: What the registry calls the peer. It is not stored on the node.
        type: str
  config_dir:
    description: The folder of the config files.
    type: path
    default: /etc/wireguard
seealso:
  - module: vpnfleet.wireguard.wg_instance
"""

EXAMPLES = r"""
- name: Add a device
  vpnfleet.wireguard.wg_peer:
    interface: wg7
    public_key: 4Q84bxy9zjVyV4cBgtWqgpAVQVIHgTYrwwv0QNaIzkA=
    allowed_ips: [10.7.0.9/32]

- name: Remove two devices and change a third by one call
  vpnfleet.wireguard.wg_peer:
    interface: wg7
    peers:
      - public_key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
        state: absent
      - public_key: TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=
        state: absent
      - public_key: 4Q84bxy9zjVyV4cBgtWqgpAVQVIHgTYrwwv0QNaIzkA=
        persistent_keepalive: 25
"""

RETURN = r"""
interface:
  description: The interface.
  returned: success
  type: str
public_key:
  description: The interface's public key.
  returned: success
  type: str
listen_port:
  description: The interface's UDP port.
  returned: success
  type: int
peers_added:
  description: Public keys of peers that were added, at most 2000 keys in the whole answer.
  returned: success
  type: list
  elements: str
peers_updated:
  description: Public keys of peers that were changed.
  returned: success
  type: list
  elements: str
peers_removed:
  description: Public keys of peers that were removed.
  returned: success
  type: list
  elements: str
peers_added_count:
  description: How many peers were added. Likewise C(peers_updated_count) and C(peers_removed_count).
  returned: success
  type: int
truncated:
  description: The lists of keys are cut short; the counts are exact.
  returned: when they are
  type: bool
steps:
  description: What was done, in words.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import peers
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.argument_spec import peer_spec
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters


def main() -> None:
    module = AnsibleModule(argument_spec=peer_spec(), supports_check_mode=True)
    try:
        result = peers.run(parameters(module.params), module.check_mode, module._diff)
    except WireGuardError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
