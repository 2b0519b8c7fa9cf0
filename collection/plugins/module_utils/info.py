# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a node: the work of the module wg_info."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import find
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import run as run_command
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import read_units
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    DEFAULT_CONFIG_DIR,
    Desired,
    check_name,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import file_difference
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import Traffic, parse_traffic
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import interface_state, read_node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import MAX_ENTRIES
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState


def run(params: Dict[str, Any]) -> Dict[str, Any]:
    """Return the module's answer: every WireGuard interface of the node, or those of `interfaces` that exist."""
    asked: Optional[List[str]] = params.get("interfaces")
    if asked is not None:
        asked = [check_name(name, f"interfaces[{index}]") for index, name in enumerate(asked)]
    node = read_node(asked)
    names = sorted(node.devices) if asked is None else [name for name in asked if name in node.links]
    config_dir = params.get("config_dir") or DEFAULT_CONFIG_DIR
    wanted = [Desired(name=name, config_dir=config_dir) for name in names]
    units = read_units(wanted)
    traffic: Dict[str, Dict[str, Traffic]] = {}
    if params.get("peers", True):
        for name, text in node.dumps:
            traffic.update(parse_traffic(text, name))
    left = MAX_ENTRIES
    interfaces: List[Dict[str, Any]] = []
    for desired in wanted:
        state = interface_state(node, desired.name, desired.config_path, units[desired.name])
        entry = _interface(desired, state)
        if params.get("peers", True) and state.device:
            entry["peers"] = _peers(state, traffic.get(desired.name, {}), left)
            entry["truncated"] = len(entry["peers"]) < entry["peer_count"]
            left -= len(entry["peers"])
        interfaces.append(entry)
    return {
        "changed": False,
        "interfaces": interfaces,
        "unreadable": node.unreadable,
        "wireguard_tools": run_command(["wg", "--version"]).stdout.split(" ")[1].lstrip("v").strip(),
        "userspace": find("wireguard-go") is not None,
    }


def _interface(desired: Desired, state: InterfaceState) -> Dict[str, Any]:
    device, link, unit = state.device, state.link, state.unit
    return {
        "name": desired.name,
        "public_key": device.public_key if device else None,
        "listen_port": device.listen_port if device else None,
        "fwmark": device.fwmark if device else None,
        "up": bool(link and link.up),
        "mtu": link.mtu if link else None,
        "addresses": sorted(link.addresses) if link else [],
        "routes": [{"network": route.network, "table": route.table} for route in sorted(state.routes)][
            :MAX_ENTRIES
        ],
        "config_file": desired.config_path if state.file is not None else None,
        "file_difference": "broken"
        if state.file is not None and state.config is None
        else file_difference(state),
        "enabled": unit.enabled if unit else None,
        "active": unit.active if unit else None,
        "peer_count": len(device.peers) if device else 0,
    }


def _peers(state: InterfaceState, traffic: Dict[str, Traffic], most: int) -> List[Dict[str, Any]]:
    peers = state.device.peers if state.device else {}
    now = int(time.time())
    listed: List[Dict[str, Any]] = []
    for key in sorted(peers)[:most]:
        peer = peers[key]
        seen = traffic.get(key, Traffic(0, 0, 0))
        listed.append(
            {
                "public_key": key,
                "allowed_ips": list(peer.allowed_ips),
                "endpoint": peer.endpoint,
                "persistent_keepalive": peer.persistent_keepalive,
                "has_preshared_key": peer.preshared_key is not None,
                "latest_handshake": seen.latest_handshake,
                "seconds_since_handshake": max(0, now - seen.latest_handshake)
                if seen.latest_handshake
                else None,
                "received": seen.received,
                "sent": seen.sent,
            }
        )
    return listed
