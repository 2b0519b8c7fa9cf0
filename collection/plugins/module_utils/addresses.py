# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and networks in the one text form that wg and ip print, and the search for overlaps.

The C library's inet_ntop is what wg prints with, so that is the normal form here; ipaddress differs from it for
IPv4-mapped addresses and is ten times slower, which counts with ten thousand peers.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown


# The same few texts come up again and again: in the parameters, in the dump, in the file and in the routes.
@lru_cache(maxsize=1 << 18)
def _parsed(text: str) -> tuple[int, int, int, str]:
    """Return (bits, address as a number, prefix length, normal text with the length). Raises ValueError."""
    host, slash, prefix = text.strip().partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in host else (socket.AF_INET, 32)
    try:
        packed = socket.inet_pton(family, host)
    except (OSError, ValueError, UnicodeError):
        raise ValueError(f"{shown(text)} is not an IPv4 or IPv6 address") from None
    if not slash:
        length = bits
    elif prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= bits:
        length = int(prefix)
    else:
        raise ValueError(f"{shown(text)} has a prefix length that is not between 0 and {bits}")
    return bits, int.from_bytes(packed, "big"), length, f"{socket.inet_ntop(family, packed)}/{length}"


def _checked(text: object, field: str) -> tuple[int, int, int, str]:
    if not isinstance(text, str):
        raise InvalidInput(field, "is not an address")
    try:
        return _parsed(text)
    except ValueError as error:
        raise InvalidInput(field, str(error)) from None


@lru_cache(maxsize=1 << 18)
def network(text: str) -> tuple[int, int, int]:
    """Return (bits, first address as a number, prefix length) of a text in normal form, host bits cut off."""
    bits, number, length, _normal = _parsed(text)
    return bits, number & ~((1 << (bits - length)) - 1), length


def check_allowed_ip(text: object, field: str) -> str:
    """Return an AllowedIP in normal form, ``10.0.0.2/32``.

    A bare address means one host. Host bits are refused: wg would mask them with no more than a warning, and the
    peer would get more than was asked for.
    """
    bits, number, length, normal = _checked(text, field)
    if number & ((1 << (bits - length)) - 1):
        raise InvalidInput(field, f"{shown(text)} has host bits set; the network is {masked(text, field)}")
    return normal


def masked(text: object, field: str) -> str:
    """Return a network in normal form, host bits cut off."""
    bits, number, length, _normal = _checked(text, field)
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    first = number & ~((1 << (bits - length)) - 1)
    return f"{socket.inet_ntop(family, first.to_bytes(bits // 8, 'big'))}/{length}"


def check_interface_address(text: object, field: str) -> str:
    """Return an interface's address with its prefix length in normal form, ``10.0.0.1/24``."""
    return _checked(text, field)[3]


def covered(inner: tuple[int, int, int], outer: tuple[int, int, int]) -> bool:
    """Whether `inner` lies within `outer`."""
    bits, number, length = outer
    return (
        inner[0] == bits and inner[2] >= length and inner[1] >> (bits - length) == number >> (bits - length)
    )


def first_overlap(owned: list[tuple[str, str]]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return two entries of `owned` (network in normal form, owner) that overlap and differ in owner, or None.

    Networks nest or are apart, so in order of first address and then of size it is enough to compare with the
    networks that are still open: O(n log n).
    """
    ranges = []
    for text, owner in owned:
        bits, start, length = network(text)
        ranges.append((bits, start, length, text, owner))
    ranges.sort()
    open_ranges: list[tuple[int, int, str, str]] = []
    for bits, start, length, text, owner in ranges:
        while open_ranges and (open_ranges[-1][0] != bits or open_ranges[-1][1] < start):
            open_ranges.pop()
        for _bits, _end, other_text, other in open_ranges:
            if other != owner:
                return (other_text, other), (text, owner)
        open_ranges.append((bits, start + (1 << (bits - length)) - 1, text, owner))
    return None


def outside(networks: Iterable[str], subnets: Sequence[tuple[int, int, int]]) -> list[str]:
    """Those of `networks`, in normal form, that lie within none of `subnets`, which are as `network` returns them.

    It goes over all networks of all peers at each look, so it costs no more than it must.
    """
    four, six = (
        [
            (bits - length, number >> (bits - length), length)
            for bits, number, length in subnets
            if bits == family
        ]
        for family in (32, 128)
    )
    inet_pton, from_bytes, ipv4, ipv6 = socket.inet_pton, int.from_bytes, socket.AF_INET, socket.AF_INET6
    found = []
    for text in networks:
        host, _slash, prefix = text.partition("/")
        family, own = (ipv6, six) if ":" in host else (ipv4, four)
        number, length = from_bytes(inet_pton(family, host), "big"), int(prefix)
        for shift, head, least in own:
            if length >= least and number >> shift == head:
                break
        else:
            found.append(text)
    return found


def outermost(networks: list[str]) -> list[str]:
    """Drop every network that lies within another one; keep the rest, sorted."""
    kept: list[tuple[int, int, int]] = []
    texts: list[str] = []
    for bits, start, length, text in sorted((*network(text), text) for text in set(networks)):
        if not kept or not covered((bits, start, length), kept[-1]):
            kept.append((bits, start, length))
            texts.append(text)
    return texts
