# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records what a playbook is asked for, as operations that its run holds."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
        endings,
        looks,
        operations,
        queue,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        Conflict,
        Full,
        Invalid,
        NodeBusy,
        NotFound,
        RegistryError,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import new_id
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token

#: Seconds to wait for a reconcile of the node to end.
_PATIENCE = 20.0
_PAUSE = 0.2


class ActionModule(RegistryAction):
    """The first step of each operation."""

    def makes_registry(self) -> bool:
        """The first operation on an empty machine makes it; later steps of a run find it gone."""
        return not self._task.check_mode

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Record and claim; returns ids and names of nodes as a fact of localhost.

        What is refused is no failure of this task, as Ansible publishes nothing of those: the fact has it, no node has
        anything to do, and the report tells it and fails.
        """
        kind = str(self._task.args["operation"])
        run = operations.Run(
            id=new_id(),
            # This is a worker; the playbook lives as long as its parent.
            owner=process_token(os.getppid()),
            actor=actor(task_vars),
            hosts=frozenset(str(host) for host in task_vars.get("ansible_play_hosts_all", ())),
        )
        check = bool(self._task.check_mode)
        recorded = task_vars.get(queue.VARIABLE) is not None
        if recorded:
            run = replace(run, actor="")
        ids: list[str] = []
        stages: dict[str, list[str]] = {}
        asked: list[dict[str, Any]] = []
        refused = None
        try:
            # As they are: whoever evaluates these variables as templates executes what a customer is called.
            if recorded and not check:
                ids, stages = self._take_up(kind, task_vars, run)
            else:
                with self.registry.read() as session:
                    asked = queue.requested(session, kind, task_vars)
                ids, stages = self._begin(kind, asked, run)
        except (Invalid, NotFound, Conflict, Full) as error:
            refused = self._refuse(kind, asked, run, error)
        nodes = sorted({name for names in stages.values() for name in names})
        return {
            "operations": [] if check else ids,
            "nodes": nodes,
            "ansible_facts": {
                "vpnfleet_run": {
                    "id": run.id,
                    "operation": kind,
                    "hosts": sorted(run.hosts),
                    "nodes": nodes,
                    "stages": stages,
                    "recorded": recorded,
                    **({"refused": refused} if refused else {}),
                }
            },
        }

    def _refuse(
        self, kind: str, asked: Sequence[dict[str, Any]], run: operations.Run, error: RegistryError
    ) -> dict[str, Any]:
        """Why nothing was taken on, as the report publishes it. Of what might have been, the audit keeps who asked for
        it; of what makes no sense, nothing is recorded."""
        subjects = [str(one.get("instance") or one.get("node") or "") for one in asked]
        if not self._task.check_mode and not isinstance(error, Invalid):
            with self.registry.write() as session:
                endings.refuse(session, kind, subjects, str(error), error.code, run.actor)
        return {"reason": type(error).__name__, "code": error.code, "message": str(error)}

    def _take_up(
        self, kind: str, task_vars: dict[str, Any], run: operations.Run
    ) -> tuple[list[str], dict[str, list[str]]]:
        """The same of operations that are recorded already."""
        with self.registry.write() as session:
            rows = queue.rows(session, kind, task_vars)
            begun = [row for row in rows if queue.is_look(row)]
            if begun:
                if kind != "drift":
                    raise Conflict(f"operation {begun[0].id} asks for a plan alone: run it with --check")
                claimed = looks.begin(session, begun, run)
            else:
                claimed = queue.begin(session, rows, run)
            return [operation.id for operation in claimed], operations.stage_nodes(claimed)

    def _begin(
        self, kind: str, asked: Sequence[dict[str, Any]], run: operations.Run
    ) -> tuple[list[str], dict[str, list[str]]]:
        """The ids of the operations, and the names of the nodes by stage."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with self.registry.write(keep=not self._task.check_mode) as session:
                    claimed = operations.begin(session, kind, asked, run)
                    return [operation.id for operation in claimed], operations.stage_nodes(claimed)
            except NodeBusy:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)
