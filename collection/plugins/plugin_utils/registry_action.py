# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins that work on the registry have in common: opening it, and telling what is wrong."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import agent_transport
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    ANSWER_SECONDS,
    Agent,
    AgentError,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.side_by_side import each

try:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
        agents,
        module_answers,
        stages,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        open_registry,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        NotUsable,
        RegistryError,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import end_with_parent
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import Outcome
except ImportError as missing:
    MISSING: ImportError | None = missing
else:
    MISSING = None


#: Seconds for which what a node has done is tried to be written down: a database server restarts within them.
_PERSISTENCE = 20.0
_PAUSE = 1.0

Found = TypeVar("Found")


def require_libraries() -> None:
    """Raises AnsibleActionFail where the libraries of the registry are not installed."""
    if MISSING is not None:
        raise AnsibleActionFail(
            f"the registry needs Python's {MISSING.name} on the controller: pip install vpnfleet ({MISSING})"
        )


class RegistryAction(ActionBase):  # type: ignore[misc]
    """Runs on the controller, with the registry open as `self.registry`."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    registry: Registry

    def makes_registry(self) -> bool:
        """Whether a SQLite registry that is not there is made."""
        return False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Open the registry and do the work; called by Ansible."""
        require_libraries()
        end_with_parent()
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        try:
            self.registry = open_registry(make=self.makes_registry())
            try:
                result.update(self.work(task_vars or {}))
            finally:
                self.registry.close()
        except RegistryError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def persistently(self, write: Callable[[Session], Found]) -> Found:
        """Write to the registry what would be lost otherwise: again and again, while it cannot be used."""
        deadline = time.monotonic() + _PERSISTENCE
        while True:
            try:
                with self.registry.write() as session:
                    return write(session)
            except NotUsable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def call(
        self,
        module: str,
        arguments: dict[str, Any],
        task_vars: dict[str, Any],
        limit: float | None = None,
    ) -> tuple[Outcome, dict[str, Any]]:
        """Run a module on the node, by its agent or by Ansible's connection. DONE means that it answered; the answer
        says what became of it. Of a node that takes longer than `limit` seconds, if there is one, it is not known:
        what it is at goes on there."""
        name = str(task_vars["inventory_hostname"])
        agent = self.agent_of(name)
        if agent is not None:
            return self._call_agent(agent, name, module, arguments, limit)
        execute = partial(
            self._execute_module, module_name=module, module_args=arguments, task_vars=task_vars
        )
        try:
            answer: dict[str, Any] = execute() if limit is None else _within(limit, name, execute)
        except AnsibleConnectionFailure as error:
            return module_answers.unreachable(str(error)), {}
        except AnsibleError as error:
            # Such as a password for sudo that is missing, or no answer in time. Another node may have to know.
            return module_answers.failed(str(error)), {}
        return Outcome(stages.DONE), answer

    def agent_of(self, name: str) -> Agent | None:
        """The agent of the node of this name; None when it is reached by Ansible's connection."""
        with self.registry.read() as session:
            return agents.agent_of(session, name)

    def all_agents(self) -> dict[str, Agent]:
        """By name, the agents of all nodes that are reached by one."""
        with self.registry.read() as session:
            return agents.by_name(session)

    def _call_agent(
        self, agent: Agent, name: str, module: str, arguments: dict[str, Any], limit: float | None
    ) -> tuple[Outcome, dict[str, Any]]:
        check, diff = bool(self._task.check_mode), bool(self._task.diff)
        try:
            answer = agent_transport.run_module(
                agent, lambda: self.agent_of(name), module, arguments, check, diff, limit or ANSWER_SECONDS
            )
        except AgentError as error:
            away = agent_transport.is_away(error)
            return (module_answers.unreachable if away else module_answers.failed)(str(error)), {}
        return Outcome(stages.DONE), answer

    @abstractmethod
    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the plugin is for; returns what its result holds. May raise RegistryError."""


def _within(limit: float, name: str, execute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it returns or raises; AnsibleError after `limit` seconds, and then the programs that it has started are
    ended."""
    (done,) = each([(name, execute)], 1, limit, limit)
    try:
        return done.value()
    except TimeoutError:
        raise AnsibleError(f"the node has not answered within {limit:g} s") from None
