# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's nodes as the hosts of an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: registry
short_description: The registry's nodes as hosts
version_added: 0.1.0
author:
  - vpnfleet contributors (@vpnfleet)
description:
  - Reads the nodes out of the registry. Each is a host in the group C(nodes), with what it takes to reach it and with
    its effective settings as variables.
  - Each is in the group C(enabled) or C(disabled) too, and, where its country is known, in C(country_) followed by the
    country in small letters, with C(_) in the place of what a group's name cannot hold (C(country_de)). More groups
    come from O(groups) and O(keyed_groups).
  - What a row of the registry says is data. Nothing in it is ever taken for a template.
  - Only the table of the nodes is read, so that it does not matter how many instances and peers there are. No key is
    needed, and nothing is made or upgraded. Where there is no registry yet, no schema, that of another version, or no
    node, there are no hosts, and a warning says what to do. A database that cannot be reached is an error.
  - A node whose name or connection settings no playbook would have put there is left out, with a warning.
  - Uses a YAML file whose name ends in C(registry.yml) or C(registry.yaml).
notes:
  - The host variable C(vpnfleet_node) is a mapping. C(id), C(name), C(country), C(dns_name), C(endpoint), C(agent_url),
    C(enabled), C(weight), C(max_peers), C(wg_interface), C(ip_pool_cidr) and C(ip6_pool_cidr) are those of the node.
    C(listen_port_base), C(dns), C(mtu), C(keepalive) and C(endpoint_allowed_ip) are what an instance gets that says
    nothing else (the node's override, else the default).
  - C(ansible_host), C(ansible_port), C(ansible_user) and C(ansible_python_interpreter) are set where the node says
    something; else the variables of the inventory (C(group_vars)) hold.
requirements:
  - SQLAlchemy 2, Alembic, cryptography and netaddr on the controller (C(pip install vpnfleet))
  - psycopg 3 for PostgreSQL
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [vpnfleet.wireguard.registry]
  database_url:
    description:
      - Where the registry is, such as V(postgresql://vpnfleet@db.example.com/vpnfleet) or
        V(sqlite:////var/lib/vpnfleet/registry.db). By default a SQLite file in the user's data directory
        (C(~/.local/share/vpnfleet/registry.db)).
      - Better leave it to the environment variable, which the playbooks read too. Otherwise the inventory and what is
        done with it may come from two databases.
    type: str
    env:
      - name: VPNFLEET_DATABASE_URL
  include_disabled:
    description:
      - Whether nodes that are disabled are hosts too. They take no new instances, but those that they have are still to
        be looked after.
    type: bool
    default: true
"""

EXAMPLES = r"""
# inventories/production/registry.yml: all nodes, with the groups that there always are
plugin: vpnfleet.wireguard.registry

---
# With groups and variables of your own
plugin: vpnfleet.wireguard.registry
include_disabled: false
strict: true
groups:
  # those that get no new instance by themselves
  reserved: vpnfleet_node.weight == 0
keyed_groups:
  # port_51820, port_40000
  - key: vpnfleet_node.listen_port_base | string
    prefix: port
compose:
  # reach them by the name that customers use, where the registry does not say how
  ansible_host: ansible_host | default(vpnfleet_node.dns_name)
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

try:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import look_into
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        Invalid,
        NoSchema,
        RegistryError,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
        check_connection,
        list_nodes,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import effective
except ImportError as missing:
    # Ansible itself would say no more than that there is no such plugin.
    MISSING: ImportError | None = missing
else:
    MISSING = None

_OWN = (
    *("id", "name", "country", "dns_name", "endpoint", "agent_url", "enabled", "weight", "max_peers"),
    *("wg_interface", "ip_pool_cidr", "ip6_pool_cidr"),
)
_EFFECTIVE = ("listen_port_base", "dns", "mtu", "keepalive", "endpoint_allowed_ip")
_CONNECTION = ("ansible_host", "ansible_port", "ansible_user", "ansible_python_interpreter")


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The registry as an inventory."""

    NAME = "vpnfleet.wireguard.registry"
    # Its texts come from customers, operators and whoever else writes into the database: none becomes a template.
    trusted_by_default = False

    def verify_file(self, path: str) -> bool:
        """Whether the file is one for this plugin, by its name."""
        return bool(super().verify_file(path)) and Path(path).name.endswith(("registry.yml", "registry.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Read the registry; called by Ansible."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if MISSING is not None:
            raise AnsibleParserError(
                f"the registry needs Python's {MISSING.name} on the controller: pip install vpnfleet ({MISSING})"
            )
        try:
            nodes = self._nodes()
        except NoSchema as none:
            self.display.warning(f"There are no hosts: {none}")
            return
        except RegistryError as error:
            raise AnsibleParserError(str(error)) from None
        if not nodes:
            self.display.warning(
                "There are no hosts: the registry has no nodes. Describe them in a file, and run playbooks/nodes.yml "
                "--extra-vars nodes_file=FILE"
            )
        for node in nodes:
            try:
                check_connection(node)
            except Invalid as problem:
                self.display.warning(
                    f"A node of the registry is left out: {node.name[:60]!r}: {problem}. playbooks/nodes.yml corrects "
                    "or removes it"
                )
            else:
                self._add(node)

    def _nodes(self) -> list[Node]:
        url = self.get_option("database_url")
        registry = look_into(None if url is None else str(url))
        try:
            with registry.read() as session:
                return list_nodes(session)
        finally:
            registry.close()

    def _add(self, node: Node) -> None:
        if not node.enabled and not self.get_option("include_disabled"):
            return
        name = node.name
        self.inventory.add_host(name)
        groups = ["nodes", "enabled" if node.enabled else "disabled"]
        if node.country:
            groups.append(self._sanitize_group_name(f"country_{node.country.lower()}"))
        for group in groups:
            self.inventory.add_host(name, group=self.inventory.add_group(group))
        variables = variables_of(node)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)


def variables_of(node: Node) -> dict[str, Any]:
    """The host variables of a node."""
    settings = effective(None, node)
    told = {name: getattr(node, name) for name in _OWN}
    told.update({name: getattr(settings, name) for name in _EFFECTIVE})
    connection = {name: getattr(node, name) for name in _CONNECTION}
    return {
        "vpnfleet_node": told,
        **{name: value for name, value in connection.items() if value is not None},
    }
