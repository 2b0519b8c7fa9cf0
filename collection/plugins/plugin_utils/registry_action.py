# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins that work on the registry have in common: opening it, and telling what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        open_registry,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        NotUsable,
        RegistryError,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import end_with_parent
except ImportError as missing:
    MISSING: ImportError | None = missing
else:
    MISSING = None


#: Seconds for which what a node has done is tried to be written down: a database server restarts within them.
_PERSISTENCE = 20.0
_PAUSE = 1.0

Found = TypeVar("Found")


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
        end_with_parent()
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

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the plugin is for; returns what its result holds. May raise RegistryError."""
        raise NotImplementedError
