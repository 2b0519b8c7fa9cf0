# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of the modules, each described once and shared by the single and the batch form.

Lists of peers usually come packed (see packed.py) and then pass AnsibleModule by: module_utils.desired checks every
field of either form.
"""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import DEFAULT_CONFIG_DIR, STATES

# Lists that an action plugin sends along as one compressed text (see packed.py).
PACKED = {"_packed": {"type": "str", "no_log": True}}

PEER: Dict[str, Any] = {
    "public_key": {"type": "str", "required": True},
    "preshared_key": {"type": "str", "no_log": True},
    "allowed_ips": {"type": "list", "elements": "str"},
    "persistent_keepalive": {"type": "int"},
    "endpoint": {"type": "str"},
}
LABELS: Dict[str, Any] = {"name": {"type": "str"}, "peer_id": {"type": "str"}}
PEERS: Dict[str, Any] = {"type": "list", "elements": "dict", "options": {**PEER, **LABELS}}

INSTANCE: Dict[str, Any] = {
    "name": {"type": "str"},
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "private_key": {"type": "str", "no_log": True},
    "public_key": {"type": "str"},
    "listen_port": {"type": "int"},
    "addresses": {"type": "list", "elements": "str"},
    "mtu": {"type": "int"},
    "fwmark": {"type": "int"},
    "table": {"type": "str"},
    "pre_up": {"type": "list", "elements": "str"},
    "post_up": {"type": "list", "elements": "str"},
    "pre_down": {"type": "list", "elements": "str"},
    "post_down": {"type": "list", "elements": "str"},
    "peers": PEERS,
    "purge_peers": {"type": "bool", "default": True},
    "max_removals": {"type": "int"},
    "enabled": {"type": "bool", "default": True},
    "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR},
}


def instance_spec() -> Dict[str, Any]:
    """The parameters of wg_instance."""
    element = {**INSTANCE, "name": {"type": "str", "required": True}}
    return {
        **INSTANCE,
        "instances": {"type": "list", "elements": "dict", "options": element},
        "src": {"type": "path"},
        **PACKED,
    }


def peer_spec() -> Dict[str, Any]:
    """The parameters of wg_peer."""
    state = {"type": "str", "choices": ["present", "absent"], "default": "present"}
    single = {**PEER, "public_key": {"type": "str"}}
    element = {**PEER, **LABELS, "state": {"type": "str", "choices": ["present", "absent"]}}
    return {
        "interface": {"type": "str", "required": True},
        "state": state,
        **single,
        "peers": {"type": "list", "elements": "dict", "options": element},
        "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR},
        **PACKED,
    }


def drift_spec() -> Dict[str, Any]:
    """The parameters of wg_drift."""
    single = {
        "interface": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent", "any"], "default": "present"},
        "peers": PEERS,
        "public_key": {"type": "str"},
        "listen_port": {"type": "int"},
        "addresses": {"type": "list", "elements": "str"},
        "mtu": {"type": "int"},
    }
    element = {**single, "interface": {"type": "str", "required": True}}
    switch = {"type": "bool", "default": False}
    return {
        **single,
        "interfaces": {"type": "list", "elements": "dict", "options": element},
        "src": {"type": "path"},
        "complete": switch,
        "reconcile_missing": switch,
        "reconcile_mismatched": switch,
        "remove_unknown": switch,
        "max_removals": {"type": "int"},
        "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR},
        **PACKED,
    }


def info_spec() -> Dict[str, Any]:
    """The parameters of wg_info."""
    return {
        "interfaces": {"type": "list", "elements": "str"},
        "peers": {"type": "bool", "default": True},
        "config_dir": {"type": "path", "default": DEFAULT_CONFIG_DIR},
    }
