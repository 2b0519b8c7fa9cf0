# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long lists on their way from the controller to a module, as one compressed text.

Ten thousand peers as ordinary parameters cost seconds: AnsibleModule checks each field, repeats all of them in its
answer, and looks for each of ten thousand secrets in all that it prints. One text marked no_log costs nothing.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput

# The parameters that may be long.
LISTS = ("instances", "interfaces", "peers")
LONGEST = 512 * 1024 * 1024  # bytes, unpacked: a small text can be made that would fill a node's memory


def pack(values: Dict[str, Any]) -> str:
    """One text of printable characters out of parameters."""
    return base64.b64encode(zlib.compress(json.dumps(values, default=str).encode("utf-8"), 1)).decode("ascii")


def unpack(text: str) -> Dict[str, Any]:
    """The parameters out of such a text."""
    try:
        unpacking = zlib.decompressobj()
        plain = unpacking.decompress(base64.b64decode(text, validate=True), LONGEST)
        values = json.loads(plain) if unpacking.eof else None
    except (ValueError, zlib.error):
        raise InvalidInput("_packed", "is not what the action plugin sends") from None
    if not isinstance(values, dict):
        raise InvalidInput("_packed", "is not what the action plugin sends")
    return values


def parameters(params: Dict[str, Any]) -> Dict[str, Any]:
    """A module's parameters with the packed ones put back in their places."""
    given = {key: value for key, value in params.items() if key != "_packed"}
    if params.get("_packed"):
        given.update(unpack(params["_packed"]))
    if given.pop("src", None):
        raise InvalidInput("src", "is read on the controller; run this as a task, not as a bare module")
    return given
