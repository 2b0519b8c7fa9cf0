# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and upgrades the registry's schema, and rotates its encryption key."""

from __future__ import annotations

from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import boolean
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import MISSING
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.result_action import ResultAction

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        open_registry,
        schema_revision,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.rotation import rotate

_ROTATE = "rotate_encryption_key"


class ActionModule(ResultAction):
    """The whole of it: there is no module behind."""

    operation = "registry"

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """First the schema, then, on request, the secrets; each is one transaction."""
        wants_rotation = self._wants_rotation(task_vars)
        before = schema_revision()
        after = schema.planned(before)
        rotated: dict[str, int] = {}
        # In check mode what is not there yet is not made, and has nothing to be rotated either.
        if not self._task.check_mode or before == after:
            registry = open_registry(schema_required=False)
            try:
                if not self._task.check_mode:
                    before, after = self._upgrade(registry, task_vars)
                if wants_rotation:
                    rotated = self._rotate(registry, task_vars)
            finally:
                registry.close()
        told, diff = _schema_told(before, after)
        if wants_rotation:
            told_of_keys, diff_of_keys = _keys_told(rotated)
            told, diff = told + told_of_keys, diff + diff_of_keys
        return self.succeeded(told, diff, schema={"before": before, "after": after}, rotated=rotated)

    def _wants_rotation(self, task_vars: dict[str, Any]) -> bool:
        # As it is: whoever evaluates an extra var as a template executes what is in it.
        value = self._task.args.get(_ROTATE, task_vars.get(_ROTATE))
        try:
            return value is not None and boolean(value, _ROTATE)
        except InvalidInput as error:
            raise Invalid(error.field, error.problem) from None

    @staticmethod
    def _upgrade(registry: Registry, task_vars: dict[str, Any]) -> tuple[str | None, str]:
        before, after = registry.upgrade()
        if before != after:
            with registry.write() as session:
                session.add(_audit(task_vars, "schema upgrade", {"before": before, "after": after}))
        return before, after

    def _rotate(self, registry: Registry, task_vars: dict[str, Any]) -> dict[str, int]:
        with registry.write(keep=not self._task.check_mode) as session:
            rotated = rotate(session)
            if any(rotated.values()):
                session.add(_audit(task_vars, "key rotation", {"rotated": rotated}))
        return rotated


def _audit(task_vars: dict[str, Any], action: str, details: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        actor=actor(task_vars), action=action, subject="registry", result="success", details=details
    )


def _schema_told(before: str | None, after: str) -> tuple[list[str], list[dict[str, Any]]]:
    if before == after:
        return [f"the schema is at revision {after}, as it should be"], []
    told = f"the schema made, at revision {after}"
    if before is not None:
        told = f"the schema upgraded from revision {before} to {after}"
    return [told], [_diff("schema", f"revision {before}" if before else "none", f"revision {after}")]


def _keys_told(rotated: dict[str, int]) -> tuple[list[str], list[dict[str, Any]]]:
    counts = {name: count for name, count in rotated.items() if count}
    if not counts:
        return ["every secret is encrypted by the first key already"], []
    listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
    number = sum(counts.values())
    return (
        [f"{number} secrets encrypted anew by the first key: {listed}"],
        [_diff("secrets", f"{number} encrypted by another key than the first", "none")],
    )


def _diff(header: str, before: str, after: str) -> dict[str, Any]:
    return {"before_header": header, "after_header": header, "before": f"{before}\n", "after": f"{after}\n"}
