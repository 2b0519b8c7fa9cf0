# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of modules that take long lists: read `src`, pack the lists, run the module."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import LISTS, pack

# The one in C is ten times quicker, where PyYAML was built with it.
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PackedAction(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name with its long lists as one text."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True
    # The parameter that `src` fills; what it may be called inside the file, each with how it becomes the parameter.
    src_fills: str | None = None
    src_names: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; called by Ansible."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self.src_fills and arguments.get("src") is not None:
            if arguments.get(self.src_fills) is not None:
                raise AnsibleActionFail(
                    f"src and {self.src_fills} are two ways to say the same: set one of them"
                )
            arguments[self.src_fills] = self.from_src(str(arguments.pop("src")))
        # What is no list goes the same way: the module then says so, and names the parameter.
        lists = {name: arguments.pop(name) for name in LISTS if arguments.get(name) is not None}
        if lists:
            arguments["_packed"] = pack(lists)
        result.update(
            self._execute_module(
                module_name=self._task.action,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        )
        return result

    def from_src(self, src: str) -> list[Any]:
        """The list in the file `src` of the controller. What is in it is data; nothing is templated.

        PyYAML's plain safe loader, and JSON before it, because Ansible's own tags each text with where it came from,
        which takes seconds for ten thousand peers.
        """
        path = self._loader.get_real_file(self._find_needle("files", src), decrypt=True)
        text = Path(path).read_text(encoding="utf-8")
        try:
            data = parse(text)
        except ValueError as error:
            raise AnsibleActionFail(f"{src} is neither JSON nor YAML: {error}") from None
        if isinstance(data, dict):
            name = next((name for name in self.src_names if name in data), None)
            if name is None:
                raise AnsibleActionFail(f"{src} holds none of {', '.join(self.src_names)}")
            data = self.src_names[name](data[name])
        if not isinstance(data, list):
            raise AnsibleActionFail(f"{src} holds no list of {self.src_fills}")
        return data


def as_it_is(data: Any) -> Any:
    """For what stands in the file as the parameter takes it."""
    return data


def parse(text: str) -> Any:
    """JSON or YAML as data. Raises ValueError that says where it is wrong, without repeating what is there."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.load(text, Loader=_SAFE_LOADER)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1}" if mark else "it cannot be read") from None
