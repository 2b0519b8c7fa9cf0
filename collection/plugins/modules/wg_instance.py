#!/usr/bin/python

# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wg_instance
short_description: WireGuard interfaces, live and at boot
version_added: 0.1.0
description:
  - Brings WireGuard interfaces with their config file, peers, addresses, routes and unit to what is asked for, one
    interface or many in one call.
  - Everything is read, compared, changed where it differs, and read back. After a change that fails, the interface
    is as it was before.
  - A peer that does not change keeps its session, its counters and the endpoint to which its device has roamed,
    whatever happens to other peers.
  - On a node with systemd the unit C(wg-quick@NAME) is enabled and active; without it, the interface alone is made.
  - Interfaces stand for themselves. When one of many cannot be served the others are, and the task fails at the end
    with the reason for each.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes
  - vpnfleet.wireguard.attributes.packed
options:
  name:
    description:
      - The interface, for instance V(wg7). At most 15 characters.
      - One of O(name), O(instances) and O(src) is needed.
    type: str
  state: &state
    description:
      - V(present) - config file (mode 0600), interface up, key, port, addresses, MTU, routes and peers as asked.
      - V(disconnected) - the interface is down, its config file gone, its unit disabled, so it cannot come back on
        this node.
      - V(absent) - as V(disconnected), and nothing of it is left behind, neither its lock nor drop-ins of its unit.
    type: str
    choices: [present, disconnected, absent]
    default: present
  private_key: &private_key
    description:
      - The interface's private key in base64.
      - When it is not set, the interface keeps the key that it has. A new interface gets one that is made on the
        node and never leaves it.
    type: str
  public_key: &public_key
    description:
      - The public key that an interface of this name must have, if there is one. What has another key belongs to
        somebody else. It is not taken over by O(state=present), which fails, and it is left alone, with a warning, by
        O(state=disconnected) and O(state=absent).
      - The running interface tells its key, or else the private key in its config file. When neither does, there is
        nothing to compare.
      - It must be the public key of O(private_key), when that is set. A new interface needs O(private_key) beside it.
    type: str
  listen_port: &listen_port
    description:
      - UDP port. When it is not set, the interface keeps its port, and a new one gets a free port, which stays.
    type: int
  addresses: &addresses
    description: The interface's own addresses with prefix length, IPv4 and IPv6.
    type: list
    elements: str
  mtu: &mtu
    description:
      - The interface's MTU in bytes. When it is not set, a new interface gets that of the node's way out less 80.
    type: int
  fwmark: &fwmark
    description: Mark of the outgoing encrypted packets; V(0) for none.
    type: int
  table: &table
    description:
      - Where routes for the peers' O(peers[].allowed_ips) go. V(auto) is the main table, for what the interface's
        own subnets do not cover; V(off) is none; a number is that table.
      - With V(auto) a peer with V(0.0.0.0/0) or V(::/0) is refused, since it would send the node's own traffic into
        the tunnel.
      - When it is not set, it stays as it is; for a new interface it is V(auto).
    type: str
  pre_up: &pre_up
    description: Commands that run before the interface comes up. V(%i) stands for its name.
    type: list
    elements: str
  post_up: &post_up
    description: Commands that run when the interface has come up.
    type: list
    elements: str
  pre_down: &pre_down
    description: Commands that run before the interface goes down.
    type: list
    elements: str
  post_down: &post_down
    description: Commands that run when the interface has gone down.
    type: list
    elements: str
  peers: &peers
    description:
      - The interface's peers, all of them. When it is not set, those that run stay as they are.
      - Networks of two peers must not overlap, nor those that need a route with what another interface of the node
        holds.
    type: list
    elements: dict
    suboptions:
      public_key:
        description: The device's public key in base64.
        type: str
        required: true
      preshared_key:
        description: A secret shared with the device, in base64. When it is not set, there is none.
        type: str
      allowed_ips:
        description: The networks that belong to the device, for instance V(10.7.0.2/32).
        type: list
        elements: str
      persistent_keepalive:
        description: Seconds between keepalive packets; V(0), or not set, is off.
        type: int
      endpoint:
        description:
          - Where the peer is to be reached, C(host:port). Leave it out for customers' devices, which tell by
            connecting. It is set when the peer is added and when it changes here, and never again, so that a peer
            may roam.
        type: str
      name:
        description: What the peer is called, for reports. It is not stored on the node.
        type: str
      peer_id:
        description: What the registry calls the peer, for reports. It is not stored on the node.
        type: str
  purge_peers: &purge_peers
    description: Whether peers on the node that are not in O(peers) are removed.
    type: bool
    default: true
  max_removals: &max_removals
    description:
      - How many peers may be removed from one interface. When more would be, nothing is done to it and the task fails.
      - When it is not set, it is 10, and 0 when O(peers) is an empty list.
    type: int
  enabled: &enabled
    description: Whether the interface comes up at boot. Only for nodes with systemd.
    type: bool
    default: true
  config_dir: &config_dir
    description: The folder of the config files. The unit C(wg-quick@NAME) has a part only for the default one.
    type: path
    default: /etc/wireguard
  instances:
    description:
      - Many interfaces, to be done in one call. Each element has the options above.
      - O(state), O(mtu), O(table), O(purge_peers), O(max_removals), O(enabled) and O(config_dir) beside it are
        defaults for the elements.
    type: list
    elements: dict
    suboptions:
      name:
        description: The interface.
        type: str
        required: true
      state: *state
      private_key: *private_key
      public_key: *public_key
      listen_port: *listen_port
      addresses: *addresses
      mtu: *mtu
      fwmark: *fwmark
      table: *table
      pre_up: *pre_up
      post_up: *post_up
      pre_down: *pre_down
      post_down: *post_down
      peers: *peers
      purge_peers: *purge_peers
      max_removals: *max_removals
      enabled: *enabled
      config_dir: *config_dir
  src:
    description:
      - A file on the controller, JSON or YAML, plain or encrypted by ansible-vault, that holds the list for
        O(instances), or a mapping with the list under C(instances) or C(wireguard_instances).
      - It is read as data, never as a template, and is much quicker than variables for thousands of peers.
    type: path
seealso:
  - module: vpnfleet.wireguard.wg_peer
  - module: vpnfleet.wireguard.wg_drift
  - module: vpnfleet.wireguard.wg_info
"""

EXAMPLES = r"""
- name: Run one customer's instance
  vpnfleet.wireguard.wg_instance:
    name: wg7
    private_key: "{{ vault_wg7_private_key }}"
    listen_port: 51827
    addresses: [10.7.0.1/24, "fd00:7::1/64"]
    peers:
      - public_key: 4Q84bxy9zjVyV4cBgtWqgpAVQVIHgTYrwwv0QNaIzkA=
        allowed_ips: [10.7.0.2/32, "fd00:7::2/128"]
      - public_key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
        allowed_ips: [10.7.0.3/32]
        persistent_keepalive: 25

- name: Converge all instances of a node by one call
  vpnfleet.wireguard.wg_instance:
    instances: "{{ wireguard_instances }}"

- name: Take an instance down so that it cannot come back on this node
  vpnfleet.wireguard.wg_instance:
    name: wg7
    state: disconnected

- name: Take an instance down, but not an interface of the same name that somebody else has made
  vpnfleet.wireguard.wg_instance:
    name: wg7
    state: absent
    public_key: hgTOSoVh46IeoK2J3bnP4eZVBJcqAiVbwFcHVdB3nDk=

- name: Remove every peer of an instance, on purpose
  vpnfleet.wireguard.wg_instance:
    name: wg7
    peers: []
    max_removals: 250

- name: Converge from a file with ten thousand peers
  vpnfleet.wireguard.wg_instance:
    src: "instances/{{ inventory_hostname }}.json"
"""

RETURN = r"""
instances:
  description: What was done, per interface. With a single O(name), the same fields stand at the top too.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The interface.
      type: str
      returned: always
    state:
      description: What was asked for.
      type: str
      returned: always
    changed:
      description: Whether anything was changed.
      type: bool
      returned: always
    public_key:
      description: The interface's public key; null when it is gone.
      type: str
      returned: always
    listen_port:
      description: The interface's UDP port; null when it is gone.
      type: int
      returned: always
    peers_added:
      description: Public keys of peers that were added, at most 2000 keys in the whole answer.
      type: list
      elements: str
      returned: always
    peers_updated:
      description: Public keys of peers that were changed.
      type: list
      elements: str
      returned: always
    peers_removed:
      description: Public keys of peers that were removed.
      type: list
      elements: str
      returned: always
    peers_added_count:
      description: How many peers were added. Likewise C(peers_updated_count) and C(peers_removed_count).
      type: int
      returned: always
    truncated:
      description: The lists of keys are cut short; the counts are exact.
      type: bool
      returned: when they are
    steps:
      description: What was done, in words.
      type: list
      elements: str
      returned: always
    error:
      description: Why this interface could not be served. It is as it was before.
      type: str
      returned: on failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import instances
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.argument_spec import instance_spec
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters


def main() -> None:
    module = AnsibleModule(argument_spec=instance_spec(), supports_check_mode=True)
    try:
        result = instances.run(parameters(module.params), module.check_mode, module._diff)
    except WireGuardError as error:
        module.fail_json(msg=str(error))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
