# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the operations of a run: their results, for set_stats, for their rows and for whoever reads the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.utils.color import stringc

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import operations
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
        Reporting,
        read_reporting,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
        MOST_CHARACTERS,
        bounded,
    )

_REGISTRY = "ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry"
_MOST_TOLD = 20
#: Lines of a diff that are shown and that the result holds: a runner loses what is too long, and a person does not read
#: it.
_MOST_LINES = 2000
#: For what is no list, in characters: more than 50 results need.
_ROOM = 50_000


class ActionModule(RegistryAction):
    """The last step of each operation."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The result object, and what is not done: no failure of this task, as Ansible publishes nothing of those."""
        run = self._task.args["run"]
        if run.get("refused"):
            return self._refused(run)
        check = bool(self._task.check_mode)
        ended = operations.Run(
            id=str(run["id"]),
            owner="",
            actor="" if run.get("recorded") else actor(task_vars),
            hosts=frozenset(run["hosts"]),
        )
        # Whoever asks over HTTP gets the report as the answer.
        wish = Reporting()
        if run["operation"] == "drift" and not run.get("recorded"):
            wish = read_reporting(task_vars)
        with self.registry.write(keep=not check) as session:
            if check:
                held = replay(session, run, task_vars, before=None)
            else:
                held = operations.of_run(session, ended.id)
            results = operations.finish(session, held, ended)
            instances = _module("drift_report").instances_of(session, results) if wish.folder else {}
        if check:
            # A node that could not be looked at is an error all the same.
            results = [
                {
                    **one,
                    "status": one["status"] if one["status"] == "error" else "planned",
                    "operation_id": None,
                }
                for one in results
            ]
        failed = [one for one in results if one["status"] == "error"]
        partly = [one for one in results if one["status"] == "partial_success"]
        # The others are in the registry.
        told = bounded(results, MOST_CHARACTERS + _ROOM)
        published = {
            "operation": str(run["operation"]),
            "status": "planned"
            if check
            else "error"
            if len(failed) == len(results)
            else "partial_success"
            if failed or partly
            else "success",
            "changed": any(one["changed"] for one in results),
            "operations": told,
            **({"truncated": True, "operations_count": len(results)} if len(told) < len(results) else {}),
            **operations.published(held, results),
        }
        # A look is one in check mode, too.
        foreseen = "would be: " if check and run["operation"] != "drift" else ""
        for one in results[:_MOST_TOLD]:
            self._display.display(f"  {foreseen}{one['message']}")
        warnings = [text for one in results for text in one.get("warnings", ())]
        warnings += [text for one in partly for text in one.get("results", {}).get("errors", ())]
        undone = _undone(results)
        shown: dict[str, Any] = {}
        if run["operation"] == "drift" and results:
            if self._task.diff:
                shown["diff"] = self._show_diffs(results)
            if wish.fail_on_drift:
                undone += _module("drift_report").drifted(results)
            if wish.folder is not None:
                undone += self._write_report(wish.folder, results, instances, published)
        if warnings:
            shown["warnings"] = warnings
        message = _told(undone or [one["message"] for one in results])
        return {**_answer(published, undone, message), **shown}

    def _write_report(
        self,
        folder: Path,
        results: Sequence[dict[str, Any]],
        instances: Mapping[str, str],
        published: dict[str, Any],
    ) -> list[str]:
        """The report on the drift of the fleet, as files; returns why it is not written, if so. Everything else of the
        run has ended by now."""
        try:
            published["report"] = _module("drift_report").write(folder, results, instances)
        except OSError as error:
            return [f"the report cannot be written to {folder}: {error.strerror or error}"]
        self._display.display(f"  report: {published['report']['html']}")
        return []

    def _show_diffs(self, results: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
        """Ansible shows a diff of what changes alone, and a look changes nothing: this is shown here."""
        drift_diff = _module("drift_diff")
        lines: list[str] = []
        found: list[dict[str, str]] = []
        for one in sorted((one for one in results if "data" in one), key=lambda one: str(one["node"])):
            for diff in drift_diff.diffs(one["node"], one["data"]):
                lines += drift_diff.lines([diff])
                if len(lines) > _MOST_LINES:
                    left = "(and more: the registry has all of it, and report_dir writes it)"
                    self._display.display("\n".join([*map(_colored, lines[:_MOST_LINES]), left]))
                    return found
                found.append(diff)
        if lines:
            self._display.display("\n".join(map(_colored, lines)))
        return found

    def _refused(self, run: dict[str, Any]) -> dict[str, Any]:
        """Nothing was recorded, and nothing is done."""
        message = str(run["refused"]["message"])
        published = {
            "operation": str(run["operation"]),
            "status": "error",
            "code": int(run["refused"]["code"]),
            "changed": False,
            "message": message,
            "operations": [],
        }
        return _answer(published, [message], message)


def _answer(published: dict[str, Any], undone: list[str], message: str) -> dict[str, Any]:
    return {
        # What the registry takes down is a change even where no node was there to notice.
        "changed": published["changed"],
        "result": published,
        "undone": undone,
        "msg": message,
        "ansible_stats": {"data": {"vpnfleet": published}, "per_host": False, "aggregate": False},
    }


def _module(name: str) -> Any:
    """What only some runs need: each import is paid at every start."""
    return import_module(f"{_REGISTRY}.{name}")


def _colored(line: str) -> str:
    color = {
        "+": constants.COLOR_DIFF_ADD,
        "-": constants.COLOR_DIFF_REMOVE,
        "@": constants.COLOR_DIFF_LINES,
    }.get(line[:1])
    return str(stringc(line, color)) if color else line


def _undone(results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return ["another run has taken over what this one had begun"]
    return [one["message"] for one in results if one["status"] == "error"]


def _told(messages: list[str]) -> str:
    more = f"; and {len(messages) - 10} more" if len(messages) > 10 else ""
    return "; ".join(messages[:10]) + more
