# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the operations of a run: their results, for set_stats, for their rows and for whoever reads the output."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import operations
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import MOST_CHARACTERS

_MOST_TOLD = 20
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
        with self.registry.write(keep=not check) as session:
            if check:
                held = replay(session, run, task_vars, before=None)
            else:
                held = operations.of_run(session, ended.id)
            results = operations.finish(session, held, ended)
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
        told = _bounded(results)
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
        for one in results[:_MOST_TOLD]:
            self._display.display(f"  {'would be: ' if check else ''}{one['message']}")
        warnings = [text for one in results for text in one.get("warnings", ())]
        warnings += [text for one in partly for text in one.get("results", {}).get("errors", ())]
        answer = _answer(published, _undone(results), _told([one["message"] for one in (failed or results)]))
        if warnings:
            answer["warnings"] = warnings
        return answer

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


def _bounded(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as can be published; the others are in the registry."""
    found, size = [], 0
    for one in results:
        size += len(json.dumps(one))
        if size > MOST_CHARACTERS + _ROOM:
            break
        found.append(one)
    return found


def _undone(results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return ["another run has taken over what this one had begun"]
    return [one["message"] for one in results if one["status"] == "error"]


def _told(messages: list[str]) -> str:
    more = f"; and {len(messages) - 10} more" if len(messages) > 10 else ""
    return "; ".join(messages[:10]) + more
