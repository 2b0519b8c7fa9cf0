# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent remembers of an interface from one syncconf to the next, so that what has not changed is not looked at
again. Nothing depends on it: whatever is not as remembered is read, parsed and compared as ever."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import NOTHING, Known
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState

MOST_INTERFACES = 64


class Remembered(NamedTuple):
    """The state that was reached last, and the configuration that asked for it."""

    state: Optional[InterfaceState] = None
    config: Known = NOTHING


_MEMORY: Dict[str, Remembered] = {}


def recall(interface: str) -> Remembered:
    """What is remembered of an interface."""
    return _MEMORY.get(interface, Remembered())


def remember(interface: str, reached: Remembered) -> None:
    """Remember it, in the place of what was remembered before."""
    if interface not in _MEMORY and len(_MEMORY) >= MOST_INTERFACES:
        _MEMORY.clear()
    _MEMORY[interface] = reached
