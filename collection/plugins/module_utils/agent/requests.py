# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bodies of requests: JSON objects with the fields that are known, and no others."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple, Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown


def fields_of(body: Union[bytes, bytearray], known: Tuple[str, ...]) -> Dict[str, Any]:
    """The object of a body. Raises InvalidInput."""
    try:
        # Not left to json to guess: it would take UTF-16 and UTF-32, too.
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply") from None
    except InvalidInput:
        raise
    except ValueError:
        raise InvalidInput("body", "is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidInput("body", "is not a JSON object")
    unknown = sorted(shown(key) for key in found if key not in known)
    if unknown:
        raise InvalidInput("body", f"unknown field {unknown[0]}; known are {', '.join(known)}")
    return found


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("body", "a field is there twice")
    return found


def _no_number(text: str) -> Any:
    raise InvalidInput("body", f"{text} is not a number of JSON's")
