# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done to one interface, as steps: `plan` says which, `apply` does them, `report` tells of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple, Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer, Route


@dataclass(frozen=True)
class WriteFile:
    """Put the config file in place."""

    text: str
    before: Optional[str]


@dataclass(frozen=True)
class RemoveFile:
    """Remove the config file."""

    before: str


@dataclass(frozen=True)
class RunHooks:
    """Run the commands of one hook, as wg-quick would."""

    name: str
    commands: Tuple[str, ...]


@dataclass(frozen=True)
class StopUnit:
    """Stop the unit (wg-quick takes the interface down, if it can)."""


@dataclass(frozen=True)
class StartUnit:
    """Start the unit (wg-quick brings the interface up from the file)."""


@dataclass(frozen=True)
class AdoptUnit:
    """Make the unit active around an interface that is up already, without touching the interface."""


@dataclass(frozen=True)
class EnableUnit:
    """Let the unit start at boot, or not."""

    enabled: bool


@dataclass(frozen=True)
class CreateLink:
    """Make the interface, by the kernel or by wireguard-go."""


@dataclass(frozen=True)
class DeleteLink:
    """Remove the interface."""


@dataclass(frozen=True)
class SetDevice:
    """Set what is not None of key, port and fwmark."""

    private_key: Optional[str] = None
    listen_port: Optional[int] = None
    fwmark: Optional[int] = None


@dataclass(frozen=True)
class SetPeers:
    """Add and update the peers `put` and remove those of `remove`; touch no other."""

    put: Tuple[Peer, ...] = ()
    remove: Tuple[str, ...] = ()
    added: Tuple[str, ...] = ()  # keys out of `put`
    updated: Tuple[str, ...] = ()
    before: Dict[str, Peer] = field(default_factory=dict)  # what updated and removed peers were


@dataclass(frozen=True)
class SetAddresses:
    """Add and remove the interface's addresses."""

    add: Tuple[str, ...] = ()
    remove: Tuple[str, ...] = ()


@dataclass(frozen=True)
class SetMtu:
    """Set the MTU, in bytes."""

    mtu: int


@dataclass(frozen=True)
class LinkUp:
    """Bring the interface up."""


@dataclass(frozen=True)
class SetRoutes:
    """Add or remove routes through the interface."""

    add: Tuple[Route, ...] = ()
    remove: Tuple[Route, ...] = ()


Step = Union[
    WriteFile, RemoveFile, RunHooks, StopUnit, StartUnit, AdoptUnit, EnableUnit, CreateLink, DeleteLink, SetDevice,
    SetPeers, SetAddresses, SetMtu, LinkUp, SetRoutes,
]  # fmt: skip
