# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs wg_info where the other modules run: on the host, or by its agent."""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import PackedAction


class ActionModule(PackedAction):
    """The controller's side of wg_info."""

    packs = ()
