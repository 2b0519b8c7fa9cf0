# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of a node besides its name, and how each of it is checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    check_interface,
    is_host_name,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    NODE_CHECKS,
    Check,
    check_port,
)

# What goes into a command line of ssh or a shell on the node holds no character that means anything there.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:@[A-Za-z0-9.-]+)?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._+-]+)+")
# It becomes a group's name, and a page shows it. Letters are those of Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic,
# Georgian, kana, Han and Hangul, spelled out: what \w is differs between the languages that read this pattern.
_LETTERS = (
    "A-Za-z0-9_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u0561-\u0587\u05d0-\u05ea\u0620-\u064a\u10d0-\u10fa\u1e00-\u1eff\u3041-\u3096"
    "\u30a1-\u30fa\u30fc\u4e00-\u9fff\uac00-\ud7a3"
)
#: A country's name or code.
COUNTRY = rf"[{_LETTERS}](?:[{_LETTERS} .,'()-]*[{_LETTERS}.)])?"
_COUNTRY = re.compile(COUNTRY)
_PLACE = re.compile(r"(?:(?P<host>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?")
_URL = re.compile(r"https?://(?P<place>[^/]+)/?")


def _check_host(value: object, field: str) -> str | None:
    """A host name or an address."""
    text = _text(value, field, 253)
    if text is None or is_address(text) or (is_host_name(text) and not text.rpartition(".")[2].isdigit()):
        return text
    raise Invalid(field, f"{shown(text)} is neither a host name nor an IP address")


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, without a zone."""
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _check_user(value: object, field: str) -> str | None:
    return _matching(_text(value, field, 64), field, _USER, "a user's name")


def _check_interpreter(value: object, field: str) -> str | None:
    return _matching(_text(value, field, 255), field, _PATH, "the absolute path of a program")


def _check_country(value: object, field: str) -> str | None:
    return _matching(_text(value, field, 64), field, _COUNTRY, "a country's name or code")


def _check_endpoint(value: object, field: str) -> str | None:
    """A host, or host:port; an IPv6 address in brackets where a port follows."""
    text = _text(value, field, 261)
    if text is None or is_address(text):
        return text
    parts = _PLACE.fullmatch(text)
    if parts is None:
        raise Invalid(field, f"{shown(text)} is neither a host nor host:port nor [IPv6 address]:port")
    if parts["host"] is not None:
        _check_host(parts["host"], field)
    elif ":" not in parts["address"] or not is_address(parts["address"]):
        raise Invalid(field, f"{shown(text)}: in the brackets is no IPv6 address")
    if parts["port"] is None:
        return parts["host"] or parts["address"]
    check_port(parts["port"], field)
    return text


def _check_url(value: object, field: str) -> str | None:
    """Where a node's agent is reached; what it is to know, such as a password, is not part of it."""
    text = _text(value, field, 255)
    if text is None:
        return None
    parts = _URL.fullmatch(text)
    if parts is None or (":" in parts["place"] and is_address(parts["place"])):
        raise Invalid(field, f"{shown(text)} is not of the form https://host:port")
    _check_endpoint(parts["place"], field)
    return text


def _check_interface(value: object, field: str) -> str:
    return check_interface(value, field)


def check_flag(value: object, field: str) -> bool:
    """Yes or no. Raises Invalid."""
    if not isinstance(value, bool):
        raise Invalid(field, f"{shown(value)} is neither true nor false")
    return value


def _text(value: object, field: str, longest: int) -> str | None:
    """A text as it is; None for nothing."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Invalid(field, f"{shown(value)} is not a text")
    if len(value) > longest:
        raise Invalid(field, f"is longer than {longest} characters")
    return "".join(value)  # without what Ansible notes on texts


def _matching(text: str | None, field: str, pattern: re.Pattern[str], what: str) -> str | None:
    if text is not None and pattern.fullmatch(text) is None:
        raise Invalid(field, f"{shown(text)} is not {what}")
    return text


#: What can be said of a node besides its name, by column, with its check.
FIELDS: Mapping[str, Check] = MappingProxyType(
    {
        "ansible_host": _check_host,
        "ansible_port": check_port,
        "ansible_user": _check_user,
        "ansible_python_interpreter": _check_interpreter,
        "agent_url": _check_url,
        "endpoint": _check_endpoint,
        "wg_interface": _check_interface,
        "ip_pool_cidr": NODE_CHECKS["ip_pool_cidr"],
        "ip6_pool_cidr": NODE_CHECKS["ip6_pool_cidr"],
        "enabled": check_flag,
        "weight": NODE_CHECKS["weight"],
        "max_peers": NODE_CHECKS["max_peers"],
        "country": _check_country,
        "dns_name": _check_host,
        **{name: check for name, check in NODE_CHECKS.items() if name.startswith("override_")},
    }
)
#: What a field that is null, or that a new node does not set, becomes; None for all others but the pools.
DEFAULTS: Mapping[str, Any] = MappingProxyType({"wg_interface": "wg0", "enabled": True, "weight": 100})
#: They have no default: null is as if they were not there.
POOLS = ("ip_pool_cidr", "ip6_pool_cidr")
