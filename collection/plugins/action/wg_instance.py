# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs wg_instance with its long lists packed."""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import PackedAction, as_it_is


class ActionModule(PackedAction):
    """The controller's side of wg_instance."""

    src_fills = "instances"
    src_names = {"instances": as_it_is, "wireguard_instances": as_it_is}  # noqa: RUF012 - as in the base
