# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_nodes
short_description: Nodes as code
version_added: 0.1.0
description:
  - Makes the registry's nodes what a list, or a file, says of them. Creates, updates, enables, disables and removes;
    all of it in one transaction, or nothing.
  - A node that is not in the list stays as it is. A field that is not there stays as it is too, and one that is null
    goes back to its default. A field that is none of those below is refused.
  - Runs on the controller alone and does nothing on a node. Each node that changes gets a row in the audit.
author:
  - vpnfleet contributors (@vpnfleet)
extends_documentation_fragment:
  - vpnfleet.wireguard.attributes.registry
options:
  nodes:
    description:
      - The nodes. In the place of this and O(src), the variable C(nodes_file) may hold the path of a file, relative to
        the current folder. It is meant for the command line and taken as it is, whatever looks like a template in it.
    type: list
    elements: dict
    suboptions:
      name:
        description: A host name. It is the node's name in the inventory too, and cannot be changed.
        type: str
        required: true
      state:
        description:
          - Whether the node shall be there.
          - V(absent) is refused while an instance is on the node, or something is still to be taken down there.
        type: str
        choices: [present, absent]
        default: present
      lost:
        description:
          - With O(nodes[].state=absent), says that the machine is no more. What was still to be taken down on it is
            forgotten, and the audit keeps a list of that; operations that waited for it alone end.
          - It is refused all the same while an instance is on the node. Transfer or remove those first.
          - Of a machine that may come back, do not say so. It would run what was to be taken down there.
        type: bool
        default: false
      ansible_host:
        description: The host name or IP address by which Ansible reaches it. Else Ansible takes the name.
        type: str
      ansible_port:
        description: The port of its SSH server. Where it is not set, the variables of the inventory hold.
        type: int
      ansible_user:
        description: The user to log in as. Where it is not set, the variables of the inventory hold.
        type: str
      ansible_python_interpreter:
        description: The absolute path of its Python. Where it is not set, the variables of the inventory hold.
        type: str
      agent_url:
        description: Where its agent is reached, such as V(https://de1.example.com:8443). It is used
          once C(playbooks/agent.yml) has deployed the agent. Until then, and where it is not set, it is SSH.
        type: str
      endpoint:
        description: The host name or IP address by which devices reach it, if need be with a port.
        type: str
      wg_interface:
        description: The interface that calls for the node as a whole mean. By default V(wg0).
        type: str
      ip_pool_cidr:
        description:
          - The IPv4 network out of which the instances made here get their subnets. Needed for a new node.
          - It may change as long as it holds the subnets that were taken out of it.
        type: str
      ip6_pool_cidr:
        description: The same for IPv6; each instance gets a /64. By default a random unique local /48.
        type: str
      enabled:
        description:
          - Whether it takes new instances, as it does by default. Those that it has stay and are looked after.
        type: bool
      weight:
        description: Its share of new instances, by default V(100). With V(0) it gets only those that ask for it.
        type: int
      max_peers:
        description: How many peers it may have. By default there is no limit.
        type: int
      country:
        description: Its country, as a name or a code. In YAML, Norway's code is C("NO"), with quotes.
        type: str
      dns_name:
        description: The name that customers know it by.
        type: str
      override_listen_port:
        description: The lowest port of new instances, by default V(51820). Those that there are keep theirs.
        type: int
      override_dns:
        description: DNS servers and search domains for devices, with commas.
        type: str
      override_mtu:
        description: The MTU of its instances and their devices. When there is none any more, interfaces keep the one
          that they have.
        type: int
      override_keepalive:
        description: Seconds between keepalive packets, of devices and, to those devices that say nothing themselves, of
          the node; V(0) is off. By default V(25) for devices, and none for the node.
        type: int
      override_endpoint_allowed_ip:
        description: The networks that devices send into the tunnel, with commas. By default all.
        type: str
  src:
    description:
      - A file on the controller, in JSON or YAML, plain or encrypted by ansible-vault, with a list as in O(nodes) or a
        mapping with the key C(nodes). It is looked for in the folder C(files) beside the role or playbook.
      - It is read as data. Nothing in it is taken for a template.
    type: path
seealso:
  - plugin: vpnfleet.wireguard.registry
    plugin_type: inventory
    description: The nodes as hosts.
  - module: vpnfleet.wireguard.registry_schema
"""

EXAMPLES = r"""
- name: Add a node, and let another one take no new instances
  vpnfleet.wireguard.registry_nodes:
    nodes:
      - name: de1.example.com
        ansible_host: 192.0.2.11
        endpoint: de1.example.com
        country: DE
        ip_pool_cidr: 10.64.0.0/16
        max_peers: 5000
      - name: nl1.example.com
        enabled: false
  delegate_to: localhost
  run_once: true

- name: The same from a file that is read as data
  vpnfleet.wireguard.registry_nodes:
    src: fleet.yml
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
result:
  description: What playbooks/nodes.yml publishes by C(set_stats), also when it fails.
  returned: always
  type: dict
  contains:
    operation:
      description: Always V(nodes).
      type: str
    status:
      description: How it ended. V(planned) in check mode.
      type: str
      sample: success
    code:
      description: V(200), V(400) for a useless list, V(409) for what is in use, V(500) where there is no registry.
      type: int
    changed:
      description: Whether anything changes.
      type: bool
    message:
      description: What changes, or what is wrong, in words.
      type: str
      sample: "de1.example.com updated: weight 100 -> 50"
    nodes:
      description: The names of the nodes that change. Not there when it failed.
      type: dict
      contains:
        created:
          description: Those that are new.
          type: list
          elements: str
        updated:
          description: Those that change.
          type: list
          elements: str
        removed:
          description: Those that go.
          type: list
          elements: str
"""
