# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs wg_drift with its long lists packed."""

from __future__ import annotations

from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import PackedAction, as_it_is


def interfaces_of(instances: Any) -> Any:
    """Instances, as wg_instance takes them, as interfaces with peers and a port.

    Those that are to be gone, and those whose peers are left open, have nothing to be compared with.
    """
    if not isinstance(instances, list):
        return instances
    return [
        {"interface": entry.get("name"), "peers": entry["peers"], "listen_port": entry.get("listen_port")}
        for entry in instances
        if isinstance(entry, dict)
        and entry.get("peers") is not None
        and entry.get("state", "present") == "present"
    ]


class ActionModule(PackedAction):
    """The controller's side of wg_drift."""

    src_fills = "interfaces"
    src_names = {"interfaces": as_it_is, "wireguard_instances": interfaces_of}  # noqa: RUF012 - as in the base
