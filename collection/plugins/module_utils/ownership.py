# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose an interface is that bears the name of one asked for: its public key tells."""

from __future__ import annotations

from typing import Callable, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState


def key_there(actual: InterfaceState, public_key_of: Callable[[str], str]) -> Optional[str]:
    """The public key of what is there: of the running interface, else of its config file, else None.

    `public_key_of` is called for a file without a running interface only, since it costs a process.
    """
    if actual.device is not None and actual.device.public_key:
        return actual.device.public_key
    # A run that was killed half-way may have left an interface without a key; then the file tells whose it is.
    if actual.config is not None and actual.config.private_key:
        return public_key_of(actual.config.private_key) or None
    return None


def is_foreign(desired: Desired, actual: InterfaceState, public_key_of: Callable[[str], str]) -> bool:
    """Whether what is there has another key than the one that `desired` names. Without a key on either side there is
    nothing to compare, and it is not."""
    if desired.public_key is None:
        return False
    return key_there(actual, public_key_of) not in (None, desired.public_key)
