# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the registry's nodes what a list or a file says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import parse
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import MISSING
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.result_action import ResultAction

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
        Registry,
        is_there,
        open_registry,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
        CREATED,
        REMOVED,
        UPDATED,
        Change,
        apply_nodes,
        record,
    )

_VARIABLE = "nodes_file"


class ActionModule(ResultAction):
    """The whole of it: there is no module behind."""

    operation = "nodes"

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """All of the list in one transaction, which check mode rolls back."""
        wanted = self._wanted(task_vars)
        with self._registry() as registry, registry.write(keep=not self._task.check_mode) as session:
            changes = apply_nodes(session, wanted)
            record(session, changes, actor(task_vars))
        return self.succeeded(
            [_told(change) for change in changes],
            [_diff(change) for change in changes],
            nodes={
                action: [change.name for change in changes if change.action == action]
                for action in (CREATED, UPDATED, REMOVED)
            },
        )

    @contextmanager
    def _registry(self) -> Iterator[Registry]:
        """In check mode on a machine without a registry: an empty one that is thrown away."""
        with ExitStack() as stack:
            url = None
            if self._task.check_mode and not is_there():
                folder = stack.enter_context(TemporaryDirectory(prefix="vpnfleet-"))
                url = f"sqlite:///{folder}/registry.db"
            registry = open_registry(url)
            stack.callback(registry.close)
            yield registry

    def _wanted(self, task_vars: dict[str, Any]) -> Any:
        nodes, src = self._task.args.get("nodes"), self._task.args.get("src")
        if nodes is not None and src is not None:
            raise Invalid("", "src and nodes are two ways to say the same: set one of them")
        if nodes is not None:
            return nodes
        if src is not None:
            return self._read(Path(self._find_needle("files", str(src))), "src")
        # As it is: whoever evaluates an extra var as a template executes what is in it.
        given = task_vars.get(_VARIABLE)
        if not isinstance(given, str) or not given:
            raise Invalid(_VARIABLE, "is needed: the path of the file that describes the nodes")
        return self._read(Path.cwd() / "".join(given), _VARIABLE)

    def _read(self, path: Path, field: str) -> Any:
        """The list in a file, which may be encrypted by ansible-vault. What is in it is data."""
        if not path.is_file():
            raise Invalid(field, f"there is no file {path}")
        real = self._loader.get_real_file(str(path), decrypt=True)
        try:
            data = parse(Path(real).read_text(encoding="utf-8"))
        except ValueError as error:
            told = "not UTF-8" if isinstance(error, UnicodeError) else str(error)
            raise Invalid(field, f"{path} is neither JSON nor YAML: {told}") from None
        except OSError as error:
            raise Invalid(field, f"{path} cannot be read: {error.strerror}") from None
        finally:
            self._loader.cleanup_tmp_file(real)
        return data.get("nodes") if isinstance(data, dict) else data


def _told(change: Change) -> str:
    if change.action != UPDATED:
        return f"{change.name} {change.action}"
    fields = ", ".join(
        f"{name} {_shown(values['before'])} -> {_shown(values['after'])}"
        for name, values in change.fields().items()
    )
    return f"{change.name} updated: {fields}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _diff(change: Change) -> dict[str, Any]:
    def text(fields: Any) -> str:
        return "".join(
            f"{name}: {_shown(value)}\n" for name, value in (fields or {}).items() if value is not None
        )

    header = f"node {change.name}"
    return {
        "before_header": header,
        "after_header": header,
        "before": text(change.before),
        "after": text(change.after),
    }
