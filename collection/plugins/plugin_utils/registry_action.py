# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins that work on the registry have in common: opening it, and telling what is wrong."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        open_registry,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        RegistryError,
    )
except ImportError as missing:
    MISSING: ImportError | None = missing
else:
    MISSING = None


class RegistryAction(ActionBase):  # type: ignore[misc]
    """Runs on the controller, with the registry open as `self.registry`."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    registry: Registry

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Open the registry and do the work; called by Ansible."""
        if MISSING is not None:
            raise AnsibleActionFail(
                f"the registry needs Python's {MISSING.name} on the controller: pip install vpnfleet"
            )
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        try:
            self.registry = open_registry()
            try:
                result.update(self.work(task_vars or {}))
            finally:
                self.registry.close()
        except RegistryError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the plugin is for; returns what its result holds. May raise RegistryError."""
        raise NotImplementedError
