# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares nodes with what the registry says of them, all of a run at once. In a reconcile, brings one node to that."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ansible import context
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift as wg_drift
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import agent_transport, node_look
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    Agent,
    AgentError,
    AgentFailed,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.node_shell import NodeShells
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.side_by_side import (
    Done,
    each,
)

if MISSING is None:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
        drift,
        drift_answer,
        looks,
        meanwhile,
        node_operations,
        operations,
        stages,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.expected import (
        as_asked,
        expected,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
        Node,
        Operation,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.module_answers import (
        failed,
        of_instance,
        unreachable,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_operations import (
        nodes_of,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.replay import replay
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import bounded
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import Outcome

_DRIFT = "vpnfleet.wireguard.wg_drift"
_INSTANCE = "vpnfleet.wireguard.wg_instance"
#: A runner loses a result of more than 700,000 characters.
_MOST_DIFF = 300_000
_MOST_TOLD = 20
#: Seconds in which a healthy node answers; one that takes longer makes room for the next.
_PATIENCE = 2.0
#: Seconds in which a node has mended what differs, and in which it has said what it would mend. Two such calls fit into
#: a run. A wg that hangs is told of long before by the node itself.
_MENDING = 400.0
_PLANNING = 60.0
#: Nodes whose part of the registry is read together.
_TOGETHER = 20


_Looked = Mapping[str, "tuple[Outcome, dict[str, Any] | None]"]
Look = Callable[[str, Sequence[wg_drift.Expected], Mapping[str, Any]], Callable[[], dict[str, Any]]]


class ActionModule(RegistryAction):
    """A look is at all nodes of the run at once. A reconcile is a run's part on one node: one call of wg_drift, and of
    wg_instance only where a whole interface is concerned."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Look, mend if asked to, write down how it went.

        A node that cannot be read is no failure of the task: it is written down, and the report tells it.
        """
        if str(self._task.args["run"]["operation"]) == "reconcile":
            return self._mend(task_vars)
        if not self._task.args["run"]["nodes"]:
            return {}
        # There are hundreds of thousands of small objects to come, and no circles of them: to look for these took
        # longer than everything else.
        gc.disable()
        try:
            return self._look_at_all(task_vars)
        except RegistryError as error:
            # The report comes after it, and says of which nodes nothing is known.
            return {"warnings": [str(error)]}
        finally:
            gc.enable()

    # -- looking

    def _look_at_all(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        with self._reading() as session:
            held = self._held(session, task_vars)
            nodes = {node.name: str(node.id) for node in nodes_of(session, held)}
            limit = float(held[0].request.get("timeout", drift.TIMEOUT)) if held else drift.TIMEOUT
            waited_for = looks.waited_for(session, {str(one.run_id) for one in held})
        at_once = int(context.CLIARGS.get("forks") or 1)
        # With nothing but nodes that hang, the last one has its turn before the first one is given up.
        patience = min(_PATIENCE, limit * at_once / max(len(nodes), 1))
        looked: dict[str, tuple[Outcome, dict[str, Any] | None]] = {}
        compared: dict[str, list[wg_drift.Expected]] = {}
        for done in each(self._looks(nodes, task_vars, limit, compared), at_once, limit, patience):
            outcome, answer = _outcome(done, limit)
            before = compared.pop(done.name, [])
            if answer is not None and answer["has_drift"]:
                outcome, answer = self._without_what_changed(nodes[done.name], answer, before)
            report = None if answer is None else drift.report(nodes[done.name], answer)
            looked[done.name] = outcome, report
            if done.name in waited_for:
                # Whoever asks for one node need not wait for the others.
                self._write_down({done.name: looked[done.name]}, task_vars)
        return self._tell(
            looked, {name: one for name, one in looked.items() if name not in waited_for}, task_vars
        )

    def _without_what_changed(
        self, node_id: str, answer: dict[str, Any], before: Sequence[wg_drift.Expected]
    ) -> tuple[Outcome, dict[str, Any] | None]:
        """What differs on a node, but for that of which the registry says something else than `before`."""
        try:
            after = self._expected([node_id]).get(node_id, [])
        except (RegistryError, WireGuardError) as error:
            return failed(str(error)), None
        return Outcome(stages.DONE), meanwhile.unchanged(answer, before, after)

    def _looks(
        self,
        nodes: Mapping[str, str],
        task_vars: dict[str, Any],
        limit: float,
        compared: dict[str, list[wg_drift.Expected]],
    ) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """What is to be done for each node, by its name. They are made as they are taken: what the registry says of a
        thousand nodes is not held at once. `compared` gets what it said of those that are taken."""
        look = self.looker(limit)
        names = list(nodes)
        for start in range(0, len(names), _TOGETHER):
            some = names[start : start + _TOGETHER]
            try:
                wanted = self._expected([nodes[name] for name in some])
            except (RegistryError, WireGuardError):
                # What is wrong with one row is told of its node, and of no other.
                wanted = {}
            for name in some:
                try:
                    if nodes[name] not in wanted:
                        wanted.update(self._expected([nodes[name]]))
                    compared[name] = wanted.pop(nodes[name])
                    yield name, look(name, compared[name], task_vars["hostvars"].raw_get(name))
                except Exception as error:
                    yield name, partial(_raise, error)

    def _expected(self, ids: Sequence[str]) -> dict[str, list[wg_drift.Expected]]:
        with self.registry.read() as session:
            return expected(session, ids)

    def looker(self, limit: float) -> Look:
        """What is to be done for a node, by its name, what it should run, and the host's variables: a function that
        looks at it, in a thread of its own, and gives what wg_drift answers. Here is decided how a node is reached.
        What either raises is told as how it went on that node."""
        shells = NodeShells(self)
        agents = self.all_agents()

        def look(
            name: str, wanted: Sequence[wg_drift.Expected], variables: Mapping[str, Any]
        ) -> Callable[[], dict[str, Any]]:
            if name in agents:
                return self._by_agent(agents[name], name, wanted, limit)
            return partial(node_look.look, shells.shell(variables), wanted, limit)

        return look

    def _by_agent(
        self, agent: Agent, name: str, wanted: Sequence[wg_drift.Expected], limit: float
    ) -> Callable[[], dict[str, Any]]:
        """Have its agent read the node and compare: one request."""

        def ask() -> dict[str, Any]:
            answer = agent_transport.run_module(
                agent,
                lambda: self.agent_of(name),
                _DRIFT,
                {"_packed": pack({"interfaces": [as_asked(one) for one in wanted]}), "complete": True},
                check=True,
                diff=False,
                timeout=limit,
            )
            if "has_drift" not in answer:
                raise AgentFailed(str(answer.get("msg", "no answer")))
            return drift_answer.understood(answer)

        return ask

    def _tell(self, looked: _Looked, unwritten: _Looked, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Write down how it went where that is not done yet, all in one transaction; returns what the task shows."""
        told = {
            name: {
                "reached": outcome.state != stages.UNREACHABLE,
                **({} if report is None else {"summary": report["summary"]}),
            }
            for name, (outcome, report) in sorted(looked.items())
        }
        shown: dict[str, Any] = {"changed": False, "nodes": told}
        errors = [
            f"{name}: {outcome.error}" for name, (outcome, _report) in sorted(looked.items()) if outcome.error
        ]
        if errors:
            more = len(errors) - _MOST_TOLD
            shown["warnings"] = [*errors[:_MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]
        if self._task.check_mode:
            facts = {name: _fact(outcome, report) for name, (outcome, report) in looked.items()}
            return {**shown, "ansible_facts": {"vpnfleet_looks": facts}}

        self._write_down(unwritten, task_vars)
        return shown

    def _write_down(self, looked: _Looked, task_vars: dict[str, Any]) -> None:
        """Settle the operations on these nodes; in check mode there is nothing to settle."""
        if self._task.check_mode or not looked:
            return

        def settle(session: Session) -> None:
            held = self._held(session, task_vars)
            drift.settle_all(
                session,
                node_operations.APPLY,
                [
                    (operation, node, *looked[node.name])
                    for operation, node in zip(held, nodes_of(session, held), strict=True)
                    if node.name in looked
                ],
            )

        self.persistently(settle)

    def _mend(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        # Nothing of it is needed to look.
        from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
            left_undone,
            reconcile,
        )

        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            left_undone.complete_transfers(session, operation, node)
            switches = reconcile.switches(operation)
            wanted = drift.wanted(session, node)
        outcome, answer = self._call_drift(wanted, switches, task_vars)
        if outcome.state != stages.DONE:
            return self._end(task_vars, outcome, None, answer)
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            left_undone.complete_transfers(session, operation, node)
            planned = reconcile.repairs(session, operation, node, wanted, answer)
        done, second = self._call_instance([repair.wanted for repair in planned], switches, task_vars)
        told = {one["name"]: one for one in second.get("instances", ())}
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            left_undone.complete_transfers(session, operation, node)
            reconcile.settle_repairs(session, operation, node, done, planned, answer)
            report = reconcile.report(operation, answer, planned, done, told)
            in_registry = stages.changed(operation)
        changed = in_registry or bool(answer.get("changed")) or bool(second.get("changed"))
        diff = [*answer.get("diff", ()), *second.get("diff", ())]
        return self._end(task_vars, Outcome(stages.DONE, changed), report, {**answer, "diff": diff})

    # -- the registry

    def _writing(self) -> AbstractContextManager[Session]:
        return self.registry.write(keep=not self._task.check_mode)

    def _reading(self) -> AbstractContextManager[Session]:
        """For what writes nothing, so that a hundred nodes can be looked at side by side."""
        return self._writing() if self._task.check_mode else self.registry.read()

    def _held(self, session: Session, task_vars: dict[str, Any]) -> list[Operation]:
        """The run's operations."""
        run = self._task.args["run"]
        if self._task.check_mode:
            return replay(session, run, task_vars, before=node_operations.APPLY)
        return operations.of_run(session, str(run["id"]))

    def _mine(self, session: Session, task_vars: dict[str, Any]) -> tuple[Node, Operation]:
        """This node, and the run's operation on it."""
        node = require_node(session, str(task_vars["inventory_hostname"]))
        return node, node_operations.of_node(self._held(session, task_vars), node)

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
            shown["diff"] = bounded(answer.get("diff", ()), _MOST_DIFF)
        if outcome.error is not None:
            shown["warnings"] = [outcome.error]
        if self._task.check_mode:
            return {**shown, "ansible_facts": {"vpnfleet_looked": _fact(outcome, report)}}
        with self._writing() as session:
            node, operation = self._mine(session, task_vars)
            stages.note(operation, report=report)
            operations.settle(session, [operation], node_operations.APPLY, node, {operation.id: outcome})
        return shown

    # -- the node

    def _patience(self) -> float:
        return _PLANNING if self._task.check_mode else _MENDING

    def _call_drift(
        self, wanted: drift.Wanted, switches: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> tuple[Outcome, dict[str, Any]]:
        arguments = {"_packed": pack({"interfaces": wanted.interfaces}), "complete": True, **switches}
        called, answer = self.call(_DRIFT, arguments, task_vars, self._patience())
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
        called, answer = self.call(_INSTANCE, arguments, task_vars, self._patience())
        if called.state != stages.DONE:
            return dict.fromkeys(names, called), {}
        told = {str(one["name"]): one for one in answer.get("instances", ())}
        return {name: of_instance(told.get(name), answer) for name in names}, answer


def _outcome(done: Done[dict[str, Any]], limit: float) -> tuple[Outcome, dict[str, Any] | None]:
    """How it went on a node, and what wg_drift answers of it if it went well."""
    try:
        return Outcome(stages.DONE), done.value()
    except TimeoutError:
        return unreachable(f"there is no answer within {limit:g} s"), None
    except AnsibleConnectionFailure as error:
        return unreachable(str(error)), None
    except AgentError as error:
        return (unreachable if agent_transport.is_away(error) else failed)(str(error)), None
    except (AnsibleError, WireGuardError, RegistryError) as error:
        return failed(str(error)), None
    except Exception as error:
        # One node that is beyond all expectation is no reason to tell nothing of the others.
        return failed(f"it cannot be understood ({type(error).__name__})"), None


def _raise(error: Exception) -> dict[str, Any]:
    raise error


def _fact(outcome: Outcome, report: dict[str, Any] | None) -> dict[str, Any]:
    """What the report of a run in check mode needs to know, as the registry is told nothing."""
    return {
        "state": outcome.state,
        "changed": outcome.changed,
        "error": outcome.error,
        "report": report,
    }
