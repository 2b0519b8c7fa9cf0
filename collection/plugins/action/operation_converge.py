# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does on a node what the operations of a run want of it, in one call of wg_instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
        operations,
        stages,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.module_answers import (
        first_line,
        of_instance,
        on_one_line,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
        Job,
        Outcome,
    )

_MODULE = "vpnfleet.wireguard.wg_instance"
#: What is removed from an instance was removed from the registry: there is nothing to guess.
_NO_LIMIT = 2**31 - 1


class ActionModule(RegistryAction):
    """One stage of the run's operations on one node."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Read what is to be done, do it, write down how it went.

        A node that cannot be reached is no failure of the task: it is written down, and the report tells it.
        """
        stage = str(self._task.args.get("stage", "apply"))
        name = str(task_vars["inventory_hostname"])
        check = bool(self._task.check_mode)
        with self.registry.write(keep=not check) as session:
            node = require_node(session, name)
            jobs = operations.jobs(session, self._operations(session, task_vars, stage), stage, node)
        outcomes, answer = self._carry_out(jobs, task_vars)
        if not check:
            jobs = self.persistently(lambda session: self._settle(session, name, stage, outcomes, task_vars))
            if jobs:
                self._undo(name, jobs, task_vars)
        return answer

    def _settle(
        self,
        session: Session,
        name: str,
        stage: str,
        outcomes: dict[str, Outcome],
        task_vars: dict[str, Any],
    ) -> list[Job]:
        """Write down how it went; returns what is to be undone."""
        node = require_node(session, name)
        held = self._operations(session, task_vars, stage)
        operations.settle(session, held, stage, node, outcomes)
        return operations.undo(session, held, stage, node, outcomes)

    def _operations(self, session: Session, task_vars: dict[str, Any], stage: str) -> list[Operation]:
        run = self._task.args["run"]
        if self._task.check_mode:
            return replay(session, run, task_vars, before=stage)
        return operations.of_run(session, str(run["id"]))

    def _carry_out(
        self, jobs: Sequence[Job], task_vars: dict[str, Any]
    ) -> tuple[dict[str, Outcome], dict[str, Any]]:
        """By operation id how it went, and what to show of it."""
        if not jobs:
            return {}, {"changed": False, "msg": "nothing to do here"}
        arguments = {
            "_packed": pack({"instances": [job.wanted for job in jobs]}),
            "max_removals": _NO_LIMIT,
        }
        called, answer = self.call(_MODULE, arguments, task_vars)
        if called.state != stages.DONE:
            reached = called.state != stages.UNREACHABLE
            warning = called.error if reached else f"this node cannot be reached: {called.error}"
            return (
                {job.operation_id: called for job in jobs},
                {"changed": False, "reached": reached, "warnings": [warning]},
            )
        return _outcomes(jobs, answer), _shown(answer)

    def _undo(self, name: str, jobs: Sequence[Job], task_vars: dict[str, Any]) -> None:
        outcomes, _answer = self._carry_out(jobs, task_vars)
        self.persistently(
            lambda session: operations.settle_undo(session, require_node(session, name), outcomes)
        )


def _outcomes(jobs: Sequence[Job], answer: dict[str, Any]) -> dict[str, Outcome]:
    """What the module says, by operation; an operation with several jobs is done when all of them are."""
    by_interface = {str(one["name"]): one for one in answer.get("instances", ())}
    found: dict[str, Outcome] = {}
    for job in jobs:
        outcome = of_instance(by_interface.get(job.wanted["name"]), answer)
        before = found.get(job.operation_id)
        if before is not None:
            outcome = Outcome(
                before.state if before.state != stages.DONE else outcome.state,
                before.changed or outcome.changed,
                before.error or outcome.error,
            )
        found[job.operation_id] = outcome
    return found


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {key: answer[key] for key in ("changed", "diff", "instances") if key in answer}
    shown.setdefault("changed", False)
    told = list(answer.get("warnings", ()))
    told += [f"{one['name']}: {one['error']}" for one in answer.get("instances", ()) if one.get("error")]
    warnings = [on_one_line(str(one)) for one in told]
    if answer.get("failed") and not warnings:
        warnings = [first_line(str(answer.get("msg", "the module failed")))]
    return {**shown, "reached": True, **({"warnings": warnings} if warnings else {})}
