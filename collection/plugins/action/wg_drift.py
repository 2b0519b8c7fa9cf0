# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs wg_drift with its long lists packed."""

from __future__ import annotations

from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import PackedAction


class ActionModule(PackedAction):  # type: ignore[misc]
    """The controller's side of wg_drift."""

    src_fills = "interfaces"
    src_names = ("interfaces", "wireguard_instances")

    def adapt(self, name: str, data: Any) -> Any:
        """Instances, as wg_instance takes them, are interfaces with peers and a port. Those that are to be gone, and
        those whose peers are left open, have nothing to be compared with."""
        if name != "wireguard_instances" or not isinstance(data, list):
            return data
        return [
            {"interface": entry.get("name"), "peers": entry["peers"], "listen_port": entry.get("listen_port")}
            for entry in data
            if isinstance(entry, dict)
            and entry.get("peers") is not None
            and entry.get("state", "present") == "present"
        ]
