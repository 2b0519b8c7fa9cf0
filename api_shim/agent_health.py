"""What a node's agent tells of itself and its node, as it is passed on: what a node says is data, and bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MOST_INTERFACES = 1000
_MOST = 2**53 - 1
_VERSIONS = ("agent", "python", "kernel", "wireguard_tools", "wireguard_module", "wireguard_go")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+~:_-]{0,63}", re.ASCII)
_INTERFACE = re.compile(r"[A-Za-z0-9_=+][A-Za-z0-9_=+.-]{0,14}", re.ASCII)


def passed_on(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, the node's clock, and the interfaces of an agent's answer. What is not as it should be is null or left
    out, also each interface that has no name; of more than 1000 interfaces the first ones are told."""
    versions = answer.get("versions")
    told = answer.get("interfaces")
    listed = [_interface(one) for one in told[:_MOST_INTERFACES]] if isinstance(told, list) else []
    interfaces = [one for one in listed if one is not None]
    count = _number(answer.get("interface_count"))
    return {
        "time": _number(answer.get("time")),
        "versions": {
            name: _text(versions.get(name) if isinstance(versions, Mapping) else None, _VERSION)
            for name in _VERSIONS
        },
        "interface_count": len(interfaces) if count is None else count,
        "interfaces": interfaces,
    }


def _interface(told: object) -> dict[str, Any] | None:
    name = _text(told.get("name"), _INTERFACE) if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or name is None:
        return None
    port = _number(told.get("listen_port"))
    return {
        "name": name,
        "up": told.get("up") is True,
        "listen_port": port if port is not None and port <= 65535 else None,
        "peers": _number(told.get("peers")),
        # WireGuard's word for never is 0.
        "latest_handshake": _number(told.get("latest_handshake")) or None,
    }


def _number(told: object) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 <= told <= _MOST else None


def _text(told: object, form: re.Pattern[str]) -> str | None:
    return told if isinstance(told, str) and form.fullmatch(told) else None
