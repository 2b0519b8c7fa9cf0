# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of nodes and instances: which value holds, and which values may be.

A check takes a value from outside and the name of its field, returns it as the registry keeps it and raises Invalid.
Numbers may come as texts of digits. Where a setting may be left open, None and an empty text mean that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from netaddr import IPNetwork

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    check_interface_address,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import integer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import is_host_name

T = TypeVar("T")

# RFC 8200, 5: with less, the kernel takes IPv6 off the interface.
SMALLEST_MTU = 1280
LARGEST_MTU = 9000  # a jumbo frame
LARGEST_WEIGHT = 10000
#: The smallest subnet with an address for a peer besides the network's, the broadcast's and the instance's own.
LONGEST_PREFIX = 30
#: What an instance has in IPv6.
PREFIX6 = 64

_LONGEST_DNS = 255  # the column's
_LONGEST_NETWORKS = 4000
_LARGEST_NUMBER = 2**31 - 1  # PostgreSQL's integer
# "This" host and network, the host itself, link-local; multicast, reserved and broadcast (RFC 6890).
_NO_POOL = tuple(IPNetwork(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))
# Unique local and global unicast (RFC 4193, RFC 4291).
_POOL6 = tuple(IPNetwork(text) for text in ("fc00::/7", "2000::/3"))


@dataclass(frozen=True)
class Settings:
    """What holds for an instance on a node. `keepalive` is in seconds, `dns` and `endpoint_allowed_ip` are lists with
    commas; all but the port go into the devices' configuration, `mtu` into the node's too. `peer_keepalive` is the
    node's towards the devices that say nothing themselves: 0, none, unless instance or node says otherwise, for the
    default is that devices keep the way open."""

    listen_port_base: int
    dns: str | None
    mtu: int | None
    keepalive: int
    endpoint_allowed_ip: str
    peer_keepalive: int = 0


DEFAULTS = Settings(
    listen_port_base=51820, dns=None, mtu=None, keepalive=25, endpoint_allowed_ip="0.0.0.0/0, ::/0"
)


def effective(instance: Instance | None, node: Node) -> Settings:
    """What the instance says, else what the node says, else the default. Without an instance: what a new one gets."""
    own = Instance() if instance is None else instance
    return Settings(
        listen_port_base=_first(None, node.override_listen_port, DEFAULTS.listen_port_base),
        dns=_first(own.dns, node.override_dns, DEFAULTS.dns),
        mtu=_first(own.mtu, node.override_mtu, DEFAULTS.mtu),
        keepalive=_first(own.keepalive, node.override_keepalive, DEFAULTS.keepalive),
        endpoint_allowed_ip=_first(
            own.endpoint_allowed_ip, node.override_endpoint_allowed_ip, DEFAULTS.endpoint_allowed_ip
        ),
        peer_keepalive=_first(own.keepalive, node.override_keepalive, DEFAULTS.peer_keepalive),
    )


def check_port(value: object, field: str) -> int | None:
    """A port; None for open."""
    return _number(value, field, 1, 65535)


def check_mtu(value: object, field: str) -> int | None:
    """Bytes; None for open."""
    return _number(value, field, SMALLEST_MTU, LARGEST_MTU)


def check_keepalive(value: object, field: str) -> int | None:
    """Seconds, 0 for off; None for open."""
    return _number(value, field, 0, 65535)


def check_dns(value: object, field: str) -> str | None:
    """Addresses of servers and search domains, with commas, as given; None for open."""
    text = _line(value, field, _LONGEST_DNS)
    for part in _parts(text, field):
        # What has only digits and dots is meant as an address.
        if not is_host_name(part) or part.rpartition(".")[2].isdigit():
            _host_address(part, field)
    return text


def check_endpoint_allowed_ip(value: object, field: str) -> str | None:
    """Networks that devices send into the tunnel, with commas, as given; None for open."""
    text = _line(value, field, _LONGEST_NETWORKS)
    for part in _parts(text, field):
        _network(part, field)
    return text


def check_weight(value: object, field: str) -> int:
    """A node's share of new instances; 0: it gets only those that ask for it."""
    weight = _number(value, field, 0, LARGEST_WEIGHT)
    if weight is None:
        raise Invalid(field, "is needed")
    return weight


def check_max_peers(value: object, field: str) -> int | None:
    """How many peers a node may have; None for no limit."""
    return _number(value, field, 0, _LARGEST_NUMBER)


def check_pool(value: object, field: str) -> str:
    """The IPv4 network out of which a node's instances get their subnets, in normal form."""
    text = _network(value, field)
    pool = IPNetwork(text)
    if pool.version != 4:
        raise Invalid(field, f"{text} is not an IPv4 network")
    if pool.prefixlen > LONGEST_PREFIX:
        raise Invalid(
            field, f"{text} has no room for an instance with a peer: /{LONGEST_PREFIX} is the smallest"
        )
    if any(pool in other or other in pool for other in _NO_POOL):
        raise Invalid(field, f"{text} has addresses that hosts cannot have")
    return text


def check_pool6(value: object, field: str) -> str:
    """The IPv6 network out of which a node's instances get a /64 each, in normal form."""
    text = _network(value, field)
    pool = IPNetwork(text)
    if pool.version != 6:
        raise Invalid(field, f"{text} is not an IPv6 network")
    if pool.prefixlen > PREFIX6:
        raise Invalid(field, f"{text} has no room for an instance: /{PREFIX6} is the smallest")
    if not any(pool in other for other in _POOL6):
        raise Invalid(field, f"{text} is neither unique local (fc00::/7) nor global (2000::/3)")
    return text


Check = Callable[[object, str], int | str | None]

#: The settings of a node, by column.
NODE_CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "ip_pool_cidr": check_pool,
        "ip6_pool_cidr": check_pool6,
        "weight": check_weight,
        "max_peers": check_max_peers,
        "override_listen_port": check_port,
        "override_dns": check_dns,
        "override_mtu": check_mtu,
        "override_keepalive": check_keepalive,
        "override_endpoint_allowed_ip": check_endpoint_allowed_ip,
    }
)


def _first(own: T | None, override: T | None, default: T) -> T:
    return own if own is not None else override if override is not None else default


def _number(value: object, field: str, low: int, high: int) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(integer(value, field, low, high))
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None


def _network(value: object, field: str) -> str:
    try:
        return check_allowed_ip(value, field)
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None


def _host_address(text: str, field: str) -> None:
    try:
        if "/" not in text:
            check_interface_address(text, field)
            return
    except InvalidInput:
        pass
    raise Invalid(field, f"{shown(text)} is neither an IP address nor a host name")


def _line(value: object, field: str, longest: int) -> str | None:
    """A text of one line without blanks around it; None for an empty one."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid(field, "is not a text")
    text = "".join(value).strip(" ")
    if len(text) > longest:
        raise Invalid(field, f"is longer than {longest} characters")
    if not (text.isascii() and text.isprintable()):
        raise Invalid(field, f"{shown(text)} has characters that are in no address and no name")
    return text or None


def _parts(text: str | None, field: str) -> list[str]:
    if text is None:
        return []
    parts = [part.strip(" ") for part in text.split(",")]
    if not all(parts):
        raise Invalid(field, "has nothing between two commas, or before or after one")
    return parts
