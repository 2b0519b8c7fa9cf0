# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request that may be carried out to its answer."""

from __future__ import annotations

import re
from typing import Callable, Dict, Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import modules
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer, error
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.health import health
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.requests import fields_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.syncconf import syncconf
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput

Body = Union[bytes, bytearray]
Call = Callable[[str, Body], Answer]

_PATHS = (
    (re.compile(r"/v1/health()/?"), "GET"),
    (re.compile(r"/v1/modules/([a-z_]{1,40})/?"), "POST"),
    (re.compile(r"/v1/wg/([^/]{1,200})/syncconf/?"), "POST"),
)


def _health(_name: str, _body: Body) -> Answer:
    return Answer(200, health())


def _module(name: str, body: Body) -> Answer:
    if name not in modules.MODULES:
        return error(404, f"there is no such module; there are {', '.join(sorted(modules.MODULES))}")
    try:
        fields = fields_of(body, ("arguments", "check_mode", "diff", "nonce"))
        for switch in ("check_mode", "diff"):
            if not isinstance(fields.get(switch, False), bool):
                raise InvalidInput(switch, "is neither true nor false")
    except InvalidInput as problem:
        return error(400, str(problem))
    return Answer(
        200,
        modules.run(
            name, fields.get("arguments", {}), fields.get("check_mode", False), fields.get("diff", False)
        ),
    )


_CALLS: Dict[str, Call] = {"health": _health, "modules": _module, "wg": syncconf}


def call(method: str, path: str, body: Body) -> Answer:
    """Carry out a request. `path` is as in the request line; its query string does not count."""
    plain = path.partition("?")[0]
    for pattern, allowed in _PATHS:
        match = pattern.fullmatch(plain)
        if match is None:
            continue
        if method != allowed:
            return error(405, f"{method} is not allowed here, {allowed} is", Allow=allowed)
        return _CALLS[plain.split("/")[2]](match.group(1), body)
    return error(404, "there is nothing at this path")
