# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a node with what the registry says of it, and brings it to that when the run is a reconcile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
        drift,
        node_operations,
        operations,
        stages,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
        Node,
        Operation,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.module_answers import (
        failed,
        of_instance,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import Outcome

_DRIFT = "vpnfleet.wireguard.wg_drift"
_INSTANCE = "vpnfleet.wireguard.wg_instance"
#: A runner loses a result of more than 700,000 characters.
_MOST_DIFF = 300_000


class ActionModule(RegistryAction):
    """A run's part on one node: one call of wg_drift, and of wg_instance only where a whole interface is concerned."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Look, mend if asked to, write down how it went.

        A node that cannot be read is no failure of the task: it is written down, and the report tells it.
        """
        if str(self._task.args["run"]["operation"]) == "reconcile":
            return self._mend(task_vars)
        with self._reading() as session:
            node, _operation = self._mine(session, task_vars)
            wanted = drift.wanted(session, node)
        outcome, answer = self._call_drift(wanted, {}, task_vars)
        report = None if outcome.state != stages.DONE else drift.report(node, answer)
        return self._end(task_vars, outcome, report, answer)

    def _mend(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        # Nothing of it is needed to look.
        from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import reconcile

        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            reconcile.complete_transfers(session, operation, node)
            switches = reconcile.switches(operation)
            wanted = drift.wanted(session, node)
        outcome, answer = self._call_drift(wanted, switches, task_vars)
        if outcome.state != stages.DONE:
            return self._end(task_vars, outcome, None, answer)
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            reconcile.complete_transfers(session, operation, node)
            planned = reconcile.repairs(session, operation, node, wanted, answer)
        done, second = self._call_instance([repair.wanted for repair in planned], switches, task_vars)
        told = {one["name"]: one for one in second.get("instances", ())}
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            reconcile.complete_transfers(session, operation, node)
            reconcile.settle_repairs(session, operation, node, done, planned, answer)
            report = reconcile.report(operation, answer, planned, done, told)
            in_registry = stages.changed(operation)
        changed = in_registry or bool(answer.get("changed")) or bool(second.get("changed"))
        diff = [*_diffs(answer), *_diffs(second)]
        return self._end(task_vars, Outcome(stages.DONE, changed), report, {**answer, "diff": diff})

    # -- the registry

    def _writing(self) -> AbstractContextManager[Session]:
        return self.registry.write(keep=not self._task.check_mode)

    def _reading(self) -> AbstractContextManager[Session]:
        """For what writes nothing, so that a hundred nodes can be looked at side by side."""
        return self._writing() if self._task.check_mode else self.registry.read()

    def _mine(self, session: Session, task_vars: dict[str, Any]) -> tuple[Node, Operation]:
        """This node, and the run's operation on it."""
        run = self._task.args["run"]
        node = require_node(session, str(task_vars["inventory_hostname"]))
        if self._task.check_mode:
            held = replay(session, run, task_vars, before=node_operations.APPLY)
        else:
            held = operations.of_run(session, str(run["id"]))
        return node, node_operations.of_node(held, node)

    def _end(
        self,
        task_vars: dict[str, Any],
        outcome: Outcome,
        report: dict[str, Any] | None,
        answer: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write down how it went; returns what the task shows."""
        shown: dict[str, Any] = {"changed": outcome.changed, "reached": outcome.state != stages.UNREACHABLE}
        if report is not None:
            shown["summary"] = report["summary"]
        if self._task.diff:
            shown["diff"] = _bounded(_diffs(answer))
        if outcome.error is not None:
            shown["warnings"] = [outcome.error]
        if self._task.check_mode:
            looked = {
                "state": outcome.state,
                "changed": outcome.changed,
                "error": outcome.error,
                "report": report,
            }
            return {**shown, "ansible_facts": {"vpnfleet_looked": looked}}
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            stages.note(operation, report=report)
            operations.settle(session, [operation], node_operations.APPLY, node, {operation.id: outcome})
        return shown

    # -- the node

    def _call_drift(
        self, wanted: drift.Wanted, switches: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> tuple[Outcome, dict[str, Any]]:
        arguments = {"_packed": pack({"interfaces": wanted.interfaces}), "complete": True, **switches}
        called, answer = self.call(_DRIFT, arguments, task_vars)
        if called.state != stages.DONE:
            return called, {}
        if "has_drift" not in answer:
            return failed(str(answer.get("msg", "no answer"))), {}
        # Where only something of it failed, the answer says what.
        return Outcome(stages.DONE, bool(answer.get("changed"))), answer

    def _call_instance(
        self, instances: Sequence[dict[str, Any]], switches: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> tuple[dict[str, Outcome], dict[str, Any]]:
        """By interface how it went, and the answer. Without anything to do, no call."""
        if not instances:
            return {}, {}
        arguments: dict[str, Any] = {"_packed": pack({"instances": list(instances)})}
        if "max_removals" in switches:
            arguments["max_removals"] = switches["max_removals"]
        names = [str(one["name"]) for one in instances]
        called, answer = self.call(_INSTANCE, arguments, task_vars)
        if called.state != stages.DONE:
            return dict.fromkeys(names, called), {}
        told = {str(one["name"]): one for one in answer.get("instances", ())}
        return {name: of_instance(told.get(name), answer) for name in names}, answer


def _diffs(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    return list(answer.get("diff") or ())


def _bounded(diffs: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    found, size = [], 0
    for one in diffs:
        size += len(json.dumps(one))
        if size > _MOST_DIFF:
            break
        found.append(one)
    return found
