# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at one node through a shell on it: what it runs, compared with what it should. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift as wg_drift
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import AnotherDigest
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import probe
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.node_shell import NodeShell

#: More seconds than the node has to answer, after which it ends by itself what it was asked.
_LONGER = 5.0


def look(shell: NodeShell, wanted: Sequence[wg_drift.Expected], limit: float) -> dict[str, Any]:
    """Read a node by one shell there, and compare. Raises AnsibleError and WireGuardError."""
    names = [one.interface for one in wanted if one.state != "any"]
    whole = again = False
    while True:
        try:
            return wg_drift.look(wanted, _read(shell, names, limit, whole, again))
        except AnotherDigest:
            # What is long was left there, and has to be seen after all.
            whole = True
        except probe.NotAsked:
            # Peers are missing, or what was read is not all there: to be told apart.
            again = True


def _read(shell: NodeShell, names: Sequence[str], limit: float, whole: bool, again: bool) -> probe.Reading:
    mark = probe.new_mark()
    # When nobody waits for it any more, it ends there by itself.
    code, printed, said = shell.run(
        f"timeout {limit + _LONGER:g} /bin/sh", probe.text(names, mark, whole, again)
    )
    try:
        reading = probe.parse(printed, mark)
    except probe.CutShort as error:
        reason = said.strip() or printed.strip()
        if code == 0 or not reason or mark in printed:
            raise
        raise WireGuardError(f"{error}: {reason}") from None
    if reading.user != "0":
        # To others, nothing is there.
        raise WireGuardError(f"to look at it takes root, and not user id {reading.user}: set ansible_become")
    return reading
