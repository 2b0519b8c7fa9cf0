# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What wg_drift answers, as it comes from a node's agent. Who is root on the node may have it say anything; what cannot
be a report is an error of that node, and must not keep a run from telling of all the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import COUNTS
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError

_MOST = 2**31 - 1
_Check = Callable[[Any], Any]


def understood(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a report is made of, and nothing else. Raises WireGuardError when that is not there."""
    try:
        found = {
            name: [_entry(one, fields) for one in _listed(answer[name])] for name, fields in _LISTS.items()
        }
        # The lists may have been cut short; the numbers are of all.
        numbers = {
            count: _number(answer["summary"][count], len(found[name])) for name, count in COUNTS.items()
        }
        total = _number(sum(numbers.values()))
    except (KeyError, TypeError, ValueError):
        raise WireGuardError("what its agent answers is no report on drift") from None
    return {
        **found,
        "has_drift": total > 0,
        "summary": {**numbers, "total_issues": total},
        "truncated": answer.get("truncated") is True,
    }


def _entry(told: Any, fields: Mapping[str, _Check]) -> dict[str, Any]:
    return {name: check(told[name]) for name, check in fields.items()}


def _listed(told: Any) -> list[Any]:
    if not isinstance(told, list):
        raise TypeError
    return told


def _number(told: Any, least: int = 0) -> int:
    if not isinstance(told, int) or isinstance(told, bool) or not least <= told <= _MOST:
        raise ValueError
    return told


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError
    return told


def _text_or_none(told: Any) -> str | None:
    return None if told is None else _text(told)


def _texts(told: Any) -> list[str]:
    return [_text(one) for one in _listed(told)]


def _value(told: Any) -> Any:
    """Of a setting: yes or no, a number, a text, several, or nothing."""
    if told is None or isinstance(told, bool | str):
        return told
    return _texts(told) if isinstance(told, list) else _number(told)


def _mismatches(told: Any) -> list[dict[str, Any]]:
    return [_entry(one, _DIFFERENCE) for one in _listed(told)]


_DIFFERENCE: dict[str, _Check] = {"field": _text, "expected": _value, "actual": _value}
_PEER: dict[str, _Check] = {"interface": _text, "public_key": _text}
_KNOWN_PEER: dict[str, _Check] = {**_PEER, "name": _text_or_none, "peer_id": _text_or_none}
_LISTS: dict[str, dict[str, _Check]] = {
    "interface_issues": {"interface": _text, **_DIFFERENCE},
    "missing_peers": {**_KNOWN_PEER, "allowed_ips": _texts},
    "mismatched_peers": {**_KNOWN_PEER, "mismatches": _mismatches},
    "unknown_peers": {
        **_PEER,
        "allowed_ips": _texts,
        "endpoint": _text_or_none,
        "persistent_keepalive": _number,
    },
}
