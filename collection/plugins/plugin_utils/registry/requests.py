# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operation is asked to do, out of variables that came from outside.

The variables are taken as they are: a text that looks like a template is a text. What is none of the registry's names
is refused before anything runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import integer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    as_text,
    check_instance_name,
    check_node_name,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.secrets import cipher

SWITCHES = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": False}

_PROVISION_FIELDS = ("instance", "peers", "node", "prefix_length")
# Python refuses to write out much larger numbers.
_LARGEST = 2**63
_LONGEST_PATH = 4000
_PEER_FIELDS = ("name", "public_key", "preshared_key", "allowed_ips", "persistent_keepalive")


@dataclass(frozen=True)
class Reporting:
    """How a look tells what it has found: in a report in this folder, if one is wanted; and whether drift is a
    failure."""

    folder: Path | None = None
    fail_on_drift: bool = False


def read_requests(kind: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is asked of each operation: one per instance, or one per node for drift and reconcile (one with `node` None:
    all of them).

    Raises Invalid, which names the variable.
    """
    what, read = (
        ("node", _node_request) if kind in ("drift", "reconcile") else ("instance", _instance_request)
    )
    several, single = _parsed(variables.get(f"{what}s")), variables.get(what)
    if kind == "drift":
        _require_folder(read_reporting(variables).folder)
    if kind == "drift" and several is None and single is None:
        return [{"node": None, **_look(kind, variables)}]
    if (several is None) == (single is None):
        raise Invalid(what, f"set one of {what} (a name) and {what}s (a list)")
    if several is None:
        return [read(kind, single, variables, what)]
    if not isinstance(several, list) or not several:
        raise Invalid(f"{what}s", "is not a list of names")
    requests = [read(kind, one, variables, f"{what}s[{index}]") for index, one in enumerate(several)]
    seen: set[str] = set()
    for request in requests:
        if request[what] in seen:
            raise Invalid(f"{what}s", f"{request[what]} is there twice")
        seen.add(request[what])
    return requests


def read_reporting(variables: Mapping[str, Any]) -> Reporting:
    """What is asked of the report of a look. A path is taken from where the playbook was started. Raises Invalid."""
    fail_on_drift = _boolean(variables.get("fail_on_drift", False), "fail_on_drift")
    given = variables.get("report_dir")
    if given is None:
        return Reporting(None, fail_on_drift)
    text = as_text(given, "report_dir")
    if not text or not text.isprintable() or len(text) > _LONGEST_PATH:
        raise Invalid("report_dir", "is not the path of a folder")
    if "{{" in text or "{%" in text:
        raise Invalid("report_dir", f"{shown(text)} looks like a template, and none is evaluated here")
    try:
        return Reporting(Path.cwd() / Path(text).expanduser(), fail_on_drift)
    except RuntimeError:
        raise Invalid("report_dir", f"{shown(text)} begins with the home of nobody") from None


def _require_folder(path: Path | None) -> None:
    """Whether it can be made or written is seen when it is: what is plainly wrong, before anything runs."""
    if path is not None and os.path.lexists(path) and not path.is_dir():
        raise Invalid("report_dir", f"{shown(str(path))} is not a folder")


def sealed(request: dict[str, Any]) -> dict[str, Any]:
    """A request as its row keeps it: the peers encrypted, for preshared keys are among them.

    By the end of its name, the rotation of the encryption key finds what is sealed.
    """
    if "peers" not in request:
        return dict(request)
    token = cipher().encrypt(json.dumps(request["peers"]).encode()).decode("ascii")
    return {**request, "peers": len(request["peers"]), "peers_sealed": token}


def unsealed_peers(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The peers again."""
    found: list[dict[str, Any]] = json.loads(cipher().decrypt(request["peers_sealed"]))
    return found


def _instance_request(kind: str, one: Any, variables: Mapping[str, Any], field: str) -> dict[str, Any]:
    request: dict[str, Any] = {}
    if isinstance(one, Mapping) and kind == "provision":
        _refuse_unknown(one, _PROVISION_FIELDS, field)
        request.update({str(key): value for key, value in one.items() if value is not None})
        one = request.get("instance")
    if not isinstance(one, str):
        raise Invalid(field, "is not the name of an instance")
    request["instance"] = check_instance_name(str(one), field)
    if kind == "provision":
        for name in ("peers", "node", "prefix_length"):
            if request.get(name) is None and variables.get(name) is not None:
                request[name] = variables[name]
        request["peers"] = _peers(request.get("peers"))
        if "prefix_length" in request:
            request["prefix_length"] = _number(request["prefix_length"], "prefix_length", 8, 30)
    if kind == "transfer":
        if variables.get("node") is None:
            raise Invalid("node", "is needed: the node to which the instance goes")
        request["node"] = variables["node"]
    if request.get("node") is not None:
        request["node"] = check_node_name(as_text(request["node"], "node"))
    return request


def _node_request(kind: str, node: Any, variables: Mapping[str, Any], field: str) -> dict[str, Any]:
    request: dict[str, Any] = {"node": check_node_name(as_text(node, field), field), **_look(kind, variables)}
    if kind == "reconcile":
        for name, default in SWITCHES.items():
            request[name] = _boolean(variables.get(name, default), name)
        limit = variables.get("max_removals")
        request["max_removals"] = None if limit is None else _number(limit, "max_removals", 0, 2**31 - 1)
    return request


def _look(kind: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """How long a node that is looked at has to answer, in seconds, where that is said."""
    if kind != "drift" or variables.get("timeout") is None:
        return {}
    return {"timeout": _number(variables["timeout"], "timeout", 1, 3600)}


def _peers(value: Any) -> list[dict[str, Any]]:
    peers = _parsed(value)
    if peers is None:
        return []
    if not isinstance(peers, list):
        raise Invalid("peers", "is not a list")
    found = []
    for index, given in enumerate(peers):
        field = f"peers[{index}]"
        if not isinstance(given, Mapping):
            raise Invalid(field, "is not a mapping")
        _refuse_unknown(given, _PEER_FIELDS, field)
        found.append(
            {
                name: _plain(given[name], f"{field}.{name}")
                for name in _PEER_FIELDS
                if given.get(name) is not None
            }
        )
    return found


def _refuse_unknown(given: Mapping[Any, Any], known: tuple[str, ...], field: str) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise Invalid(field, f"{shown(unknown[0])} is not one of {', '.join(known)}")


def _parsed(value: Any) -> Any:
    """`-e 'instances=["a", "b"]'` gives a text where a list is meant."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _plain(value: Any, field: str, in_list: bool = False) -> Any:
    """What JSON has a form for, without what Ansible notes on it. Whether it is what belongs there is seen later."""
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < _LARGEST:
        return int(value)
    if isinstance(value, (list, tuple)) and not in_list:
        return [_plain(item, f"{field}[{index}]", in_list=True) for index, item in enumerate(value)]
    raise Invalid(field, "is neither a text nor a number" + ("" if in_list else " nor a list of them"))


def _number(value: Any, field: str, low: int, high: int) -> int:
    # What else there is, such as a text that Ansible keeps encrypted, must not be repeated in a message.
    if not isinstance(value, (str, int)) or (isinstance(value, int) and abs(value) >= _LARGEST):
        raise Invalid(field, f"is not a number from {low} to {high}")
    try:
        return int(integer(value, field, low, high))
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None


def _boolean(value: Any, field: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "on", "1"):
        return True
    if isinstance(value, str) and value.lower() in ("false", "no", "off", "0"):
        return False
    raise Invalid(field, "is neither true nor false")
