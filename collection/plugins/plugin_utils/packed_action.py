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
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import LISTS, pack
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import agent_transport
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent, AgentError

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
    # The parameters that are packed; what they hold is for the module to check.
    packs: ClassVar[tuple[str, ...]] = LISTS

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
        lists = {name: arguments.pop(name) for name in self.packs if arguments.get(name) is not None}
        if lists:
            arguments["_packed"] = pack(lists)
        agent = self._agent(task_vars or {})
        if agent is not None:
            result.update(self._by_agent(agent, arguments, task_vars or {}))
            return result
        result.update(
            self._execute_module(
                module_name=self._task.action,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        )
        return result

    def _agent(self, task_vars: dict[str, Any]) -> Agent | None:
        """The agent of the host, as its variables say, or the registry where its inventory is that."""
        delegate = self._task.delegate_to
        variables = task_vars.get("ansible_delegated_vars", {}).get(delegate, {}) if delegate else task_vars
        url = self._text(variables, "vpnfleet_agent_url")
        if url:
            secret = self._text(variables, "vpnfleet_agent_secret")
            if not secret:
                raise AnsibleActionFail("vpnfleet_agent_url is set, and vpnfleet_agent_secret is not")
            return Agent(url, secret, self._text(variables, "vpnfleet_agent_certificate") or None)
        node = variables.get("vpnfleet_node")
        if isinstance(node, Mapping) and node.get("agent_url") and node.get("name"):
            # Only what has one needs the registry's libraries. Its secret is no variable, which could be shown.
            from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_in_registry import agent_of

            return agent_of(str(node["name"]))
        return None

    def _text(self, variables: Mapping[str, Any], name: str) -> str:
        value = variables.get(name)
        return "" if value is None else str(self._templar.template(value))

    def _by_agent(
        self, agent: Agent, arguments: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        if self._task.async_val:
            raise AnsibleActionFail("async is for hosts that are reached by SSH, not by an agent")
        try:
            return agent_transport.run_module(
                agent,
                lambda: self._agent(task_vars),
                self._task.action,
                arguments,
                bool(self._task.check_mode),
                bool(self._task.diff),
            )
        except AgentError as error:
            if agent_transport.is_away(error):
                raise AnsibleConnectionFailure(str(error)) from None
            raise AnsibleActionFail(str(error)) from None

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
