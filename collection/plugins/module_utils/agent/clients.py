# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is one client, when room is shared among them."""

from __future__ import annotations

import ipaddress
from typing import Any


def client_of(address: Any) -> str:
    """Whom a connection from `address` counts for: of IPv6, whoever has one address mostly has its /64."""
    host = str(address[0]).partition("%")[0] if address else ""
    if ":" not in host:
        return host
    number = ipaddress.IPv6Address(host)
    return str(number.ipv4_mapped or ipaddress.IPv6Network((number, 64), strict=False))
