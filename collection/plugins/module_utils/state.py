# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an interface is, asked for or found: the values that plans are made of.

All of them are frozen, hold only normal forms (see addresses and keys), and compare by value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, FrozenSet, NamedTuple, Optional, Tuple


class Peer(NamedTuple):
    """One device. A tuple, since there are tens of thousands of them and they are compared one by one."""

    public_key: str
    allowed_ips: Tuple[str, ...]  # normal form, sorted
    preshared_key: Optional[str] = None
    persistent_keepalive: int = 0  # seconds; 0 is off
    endpoint: Optional[str] = None  # as asked for; None where the device itself tells by connecting


@dataclass(frozen=True)
class Device:
    """What the kernel or wireguard-go holds for an interface: the answer of ``wg show``."""

    private_key: Optional[str]
    public_key: Optional[str]
    listen_port: int
    fwmark: int
    peers: Dict[str, Peer]  # by public key; endpoints are those that the devices were last seen at

    def __repr__(self) -> str:
        return f"Device({self.public_key}, port {self.listen_port}, {len(self.peers)} peers)"


@dataclass(frozen=True)
class Link:
    """The network interface: what ``ip address show`` says of it."""

    up: bool
    mtu: Optional[int]  # bytes; None in a target: as it is
    addresses: FrozenSet[str]  # with prefix length


class Route(NamedTuple):
    """One route through the interface. `table` is "main" or a number in text."""

    network: str
    table: str


@dataclass(frozen=True)
class Hooks:
    """Commands that wg-quick runs around up and down."""

    pre_up: Tuple[str, ...] = ()
    post_up: Tuple[str, ...] = ()
    pre_down: Tuple[str, ...] = ()
    post_down: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """The meaning of an interface's config file."""

    private_key: Optional[str]
    listen_port: Optional[int]
    addresses: Tuple[str, ...]  # in order
    peers: Dict[str, Peer]
    mtu: Optional[int] = None
    fwmark: int = 0
    table: str = "auto"  # "auto", "off" or a number in text
    hooks: Hooks = field(default_factory=Hooks)
    dns: Tuple[str, ...] = ()  # kept when a file has it; nothing for a server to set

    def __repr__(self) -> str:
        return f"Config(port {self.listen_port}, {len(self.peers)} peers)"


@dataclass(frozen=True)
class Unit:
    """The state of ``wg-quick@<interface>``."""

    enabled: bool
    active: bool


@dataclass(frozen=True)
class InterfaceState:
    """All that there is of one interface on a node. Everything None or empty: nothing."""

    device: Optional[Device] = None
    link: Optional[Link] = None
    routes: FrozenSet[Route] = frozenset()
    file: Optional[str] = None  # the text of the config file
    file_is_private: bool = True  # a regular file of ours with mode 0600 (or none at all)
    config: Optional[Config] = None  # its meaning; None too when the text cannot be understood
    broken: Optional[str] = None  # why it cannot be
    unit: Optional[Unit] = None  # None on a node without systemd
    unfinished: str = ""  # what a killed run had begun: "creating" or "changing" the interface
