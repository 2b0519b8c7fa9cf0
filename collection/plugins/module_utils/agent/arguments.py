# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of a module checked by its argument spec, where there is no Ansible to do it.

It does what AnsibleModule does with the few things that the specs of this collection use, in the same words.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Mapping, Set

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import DEFAULT_CONFIG_DIR
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown

Spec = Mapping[str, Mapping[str, Any]]

_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "f", "false", "n", "no", "off"))


def checked(arguments: Any, spec: Spec, where: str = "") -> Dict[str, Any]:
    """The parameters of a module: all that `spec` names, with defaults, in their types; None for what is not given. A
    null is as good as not given.

    Raises InvalidInput."""
    found = f" found in {where}" if where else ""
    if not isinstance(arguments, dict):
        raise InvalidInput("", f"{where or 'arguments'} is not a mapping")
    unknown = sorted(shown(key) for key in arguments if key not in spec)
    if unknown:
        raise InvalidInput(
            "",
            f"Unsupported parameters{found}: {', '.join(unknown[:10])}. "
            f"Supported parameters include: {', '.join(sorted(key for key in spec if key[0] != '_'))}.",
        )
    missing = sorted(key for key in spec if spec[key].get("required") and arguments.get(key) is None)
    if missing:
        raise InvalidInput("", f"missing required arguments: {', '.join(missing)}{found}")
    return {key: _value(arguments.get(key), key, rule, where) for key, rule in spec.items()}


def _value(value: Any, key: str, rule: Mapping[str, Any], where: str) -> Any:
    if value is None:
        value = rule.get("default")
    if value is None:
        return None
    path = f"{where}.{key}" if where else key
    value = _typed(value, rule.get("type", "str"), path, rule)
    if "choices" in rule and value not in rule["choices"]:
        raise InvalidInput(
            "", f"value of {path} must be one of: {', '.join(rule['choices'])}, got: {shown(value)}"
        )
    if isinstance(value, list):
        element = rule.get("elements", "str")
        value = [_typed(item, element, f"{path}[{index}]", rule) for index, item in enumerate(value)]
        if "options" in rule:
            value = [checked(item, rule["options"], f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _typed(value: Any, kind: str, path: str, rule: Mapping[str, Any]) -> Any:
    try:
        return _TYPES[kind](value)
    except (TypeError, ValueError):
        told = "" if rule.get("no_log") else f" {shown(value)}"
        raise InvalidInput(
            "",
            f"argument '{path}' is of type {type(value).__name__} and{told} could not be converted to {kind}",
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError
    return str(value)


def _number(value: Any) -> int:
    if isinstance(value, int):
        return value  # true and false included, which the modules refuse themselves
    if not isinstance(value, str) or len(value) > 20:
        raise TypeError
    return int(value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower().strip()
    if isinstance(value, (str, int)) and word in _TRUE | _FALSE:
        return word in _TRUE
    raise TypeError


def _list(value: Any) -> List[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, (int, float)):
        return [str(value)]
    raise TypeError


def _mapping(value: Any) -> Dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise TypeError


def _path(value: Any) -> str:
    return os.path.expanduser(_text(value))


_TYPES: Dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _number,
    "bool": _truth,
    "list": _list,
    "dict": _mapping,
    "path": _path,
}


def require_own_folder(params: Mapping[str, Any]) -> None:
    """Refuse a config_dir that is not the node's own: the agent writes, reads and removes files in no folder that a
    caller chooses. `params` are a module's, with the packed ones in their places. Raises InvalidInput."""
    instances = params.get("instances")
    given = [("", params)]
    if isinstance(instances, list):
        given += [(f"instances[{n}].", item) for n, item in enumerate(instances) if isinstance(item, dict)]
    for where, fields in given:
        folder = fields.get("config_dir")
        if folder and (not isinstance(folder, str) or os.path.normpath(folder) != DEFAULT_CONFIG_DIR):
            raise InvalidInput(
                f"{where}config_dir", f"through the agent it is {DEFAULT_CONFIG_DIR}, no other"
            )


def hidden(arguments: Any, spec: Spec) -> Set[str]:
    """The texts among `arguments` that `spec` marks no_log: nothing that is answered may hold them."""
    found: Set[str] = set()
    if not isinstance(arguments, dict):
        return found
    for key, rule in spec.items():
        value = arguments.get(key)
        if rule.get("no_log") and isinstance(value, str) and value:
            found.add(value)
        if "options" in rule and isinstance(value, list):
            for item in value:
                found |= hidden(item, rule["options"])
    return found
