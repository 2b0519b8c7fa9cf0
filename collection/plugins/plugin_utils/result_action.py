# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps on the registry that are no operation of a customer's: they answer with a result object, also when they fail.

Ansible publishes no statistics of a task that fails. The object is for a `set_stats` in an `always` behind it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    require_libraries,
)

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError

_MOST_TOLD = 20


class ResultAction(ActionBase):  # type: ignore[misc]
    """Runs on the controller, without any connection."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    operation: ClassVar[str]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the work and tell how it ended; called by Ansible."""
        require_libraries()
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            result.update(self.work(task_vars or {}))
        except RegistryError as error:
            result.update(changed=False, failed=True, msg=str(error))
            result["result"] = self._result("error", error.code, False, str(error))
        return result

    @abstractmethod
    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the plugin is for; returns `succeeded`. May raise RegistryError."""

    def succeeded(self, told: list[str], diff: list[dict[str, Any]], **details: Any) -> dict[str, Any]:
        """The answer of what went well: it changed something when there is a diff. `told` says what, in sentences."""
        check = bool(self._task.check_mode)
        for line in told[:_MOST_TOLD]:
            self._display.display(f"  {'would be: ' if check else ''}{line}")
        if len(told) > _MOST_TOLD:
            self._display.display(f"  and {len(told) - _MOST_TOLD} more")
        message = "; ".join(told[:_MOST_TOLD]) or "nothing to change"
        return {
            "changed": bool(diff),
            "msg": message,
            "result": self._result("planned" if check else "success", 200, bool(diff), message, **details),
            **({"diff": diff} if self._task.diff else {}),
        }

    def _result(self, status: str, code: int, changed: bool, message: str, **details: Any) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "status": status,
            "code": code,
            "changed": changed,
            "message": message,
            **details,
        }
