# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and upgrades the registry's schema, fills it from another registry, and rotates its encryption key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import boolean
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import MISSING
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.result_action import ResultAction

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.copying import copy_registry
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        look_into,
        open_registry,
        schema_revision,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.rotation import rotate

_ROTATE = "rotate_encryption_key"
_COPY = "copy_from"


class ActionModule(ResultAction):
    """The whole of it: there is no module behind."""

    operation = "registry"

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """First the schema, then, on request, rows from elsewhere and the secrets; each is one transaction."""
        wants_rotation = self._wants_rotation(task_vars)
        other = self._copy_from(task_vars)
        before = schema_revision()
        after = schema.planned(before)
        copied: dict[str, int] = {}
        rotated: dict[str, int] = {}
        # In check mode what is not there yet is not made: it cannot be filled, and has nothing to rotate.
        if not self._task.check_mode or before == after:
            registry = open_registry(schema_required=False)
            try:
                if not self._task.check_mode:
                    before, after = self._upgrade(registry, task_vars)
                if other is not None:
                    copied = self._copy(registry, other, task_vars)
                if wants_rotation:
                    rotated = self._rotate(registry, task_vars)
            finally:
                registry.close()
        told, diff = _schema_told(before, after)
        parts = [_rows_told(copied)] if other is not None else []
        parts += [_keys_told(rotated)] if wants_rotation else []
        for more_told, more_diff in parts:
            told, diff = told + more_told, diff + more_diff
        return self.succeeded(
            told, diff, schema={"before": before, "after": after}, copied=copied, rotated=rotated
        )

    def _wants_rotation(self, task_vars: dict[str, Any]) -> bool:
        # As it is: whoever evaluates an extra var as a template executes what is in it.
        value = self._task.args.get(_ROTATE, task_vars.get(_ROTATE))
        try:
            return value is not None and boolean(value, _ROTATE)
        except InvalidInput as error:
            raise Invalid(error.field, error.problem) from None

    def _copy_from(self, task_vars: dict[str, Any]) -> Path | None:
        value = self._task.args.get(_COPY, task_vars.get(_COPY))
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise Invalid(_COPY, "is not the path of a SQLite registry")
        path = Path.cwd() / "".join(value)
        if not path.is_file():
            raise Invalid(_COPY, f"there is no file {path}")
        return path

    @staticmethod
    def _upgrade(registry: Registry, task_vars: dict[str, Any]) -> tuple[str | None, str]:
        before, after = registry.upgrade()
        if before != after:
            with registry.write() as session:
                session.add(_audit(task_vars, "schema upgrade", {"before": before, "after": after}))
        return before, after

    def _copy(self, registry: Registry, other: Path, task_vars: dict[str, Any]) -> dict[str, int]:
        if registry.engine.dialect.name != "postgresql":
            raise Invalid(
                _COPY,
                "fills a PostgreSQL registry; to have a SQLite one elsewhere, copy its file, with its key file",
            )
        source = look_into(f"sqlite:///{other}")
        try:
            with source.read() as rows, registry.write(keep=not self._task.check_mode) as session:
                copied = copy_registry(rows, session)
                session.add(_audit(task_vars, "registry copy", {"from": str(other), "copied": copied}))
        finally:
            source.close()
        return copied

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


def _rows_told(copied: dict[str, int]) -> tuple[list[str], list[dict[str, Any]]]:
    if not copied:
        return ["the rows of the other registry copied"], []
    counts = {name: count for name, count in copied.items() if count}
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
    number = sum(counts.values())
    return [f"{number} rows copied: {listed}"], [_diff("rows", "none", f"{number}")]


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
