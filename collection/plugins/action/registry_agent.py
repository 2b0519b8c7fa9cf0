# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the registry has to do with deploying agents: the steps of playbooks/agent.yml between those on the nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleActionFail

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import boolean, integer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import agent_transport
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    Agent,
    AgentError,
    certificates,
    health,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import (
    MISSING,
    RegistryAction,
)

if MISSING is None:
    from sqlalchemy.orm import Session

    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
        Invalid,
        NotFound,
        RegistryError,
    )
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, new_id
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import list_nodes
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import read_requests

_PORT = 8443
_PAUSE = 0.5
_HEALTH_SECONDS = 10.0
# Whoever rotates because a secret may be known must not take one for new that was there before.
_PENDING = "its secret is the one that an earlier run has made and not completed: rotate again for a new one"


class ActionModule(RegistryAction):
    """One step. Those on the controller come first and last, those on a node are about that node."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the step that the task names."""
        step = str(self._task.args["step"])
        steps = {
            "begin": self._begin,
            "expect": self._expect,
            "confirm": self._confirm,
            "forget": self._forget,
            "report": self._report,
        }
        if step not in steps:
            raise AnsibleActionFail(f"step: {shown(step)} is none of {', '.join(steps)}")
        return steps[step](task_vars)

    def _keep(self) -> bool:
        return not self._task.check_mode

    # -- on the controller

    def _begin(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Choose the nodes and see to their secrets. What is refused is no failure here: the report tells it."""
        hosts = {str(host) for host in task_vars.get("ansible_play_hosts_all", ())}
        told: dict[str, Any] = {"deploy": [], "remove": [], "left_out": [], "nodes": {}}
        told.update(id=new_id(), rotate=False)
        changed = False
        try:
            state, rotate, port = _asked(task_vars)
            with self.registry.write(keep=self._keep()) as session:
                for node in _nodes(session, task_vars):
                    if node.name not in hosts:
                        told["left_out"].append(node.name)
                        continue
                    told["remove" if state == "absent" else "deploy"].append(node.name)
                    if state == "present":
                        pending = rotate and agents.pending(node)
                        changed |= agents.prepare(node, rotate)
                        url, its_port = _place(node, port)
                        told["nodes"][node.name] = {"url": url, "port": its_port, "pending": pending}
            told["rotate"] = rotate
        except RegistryError as error:
            told = {"deploy": [], "remove": [], "refused": {"message": str(error), "code": error.code}}
        return {"changed": changed, "ansible_facts": {"vpnfleet_agents": told}}

    def _report(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        run = self._task.args["run"]
        if run.get("refused"):
            message = str(run["refused"]["message"])
            return _answer("error", False, message, [message], code=int(run["refused"]["code"]))
        told: list[dict[str, Any]] = []
        for name in sorted([*run["deploy"], *run["remove"]]):
            told.append({"node": name, **self._outcome(task_vars, name)})
        told += [
            {"node": name, "status": "error", "changed": False, "message": "left out of this run"}
            for name in run.get("left_out", ())
        ]
        undone = [f"node {one['node']}: {one['message']}" for one in told if one["status"] == "error"]
        for one in told:
            self._display.display(f"  {one['node']}: {one['message']}")
        status = "planned" if self._task.check_mode else "success"
        if undone:
            status = "error" if len(undone) == len(told) else "partial_success"
        pending = sorted(name for name, place in run.get("nodes", {}).items() if place.get("pending"))
        message = "; ".join(
            undone
            or [f"{len(told)} nodes as they should be", *(f"node {name}: {_PENDING}" for name in pending)]
        )
        return _answer(status, any(one["changed"] for one in told), message, undone, nodes=told)

    # -- on a node

    def _expect(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the node is going to show is known before it shows it."""
        certificate = self._certificate()
        if certificate is None:
            return {"changed": False}
        with self.registry.write(keep=self._keep()) as session:
            return {"changed": agents.expect(_mine(session, task_vars), certificate)}

    def _confirm(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The agent answers, to the newest secret and with the newest certificate: the node is reached by it."""
        place = self._task.args["run"]["nodes"][str(task_vars["inventory_hostname"])]
        url = str(place["url"])
        note = f"; {_PENDING}" if place.get("pending") else ""
        certificate = self._certificate()
        if self._task.check_mode:
            return {
                "changed": False,
                **self._told("planned", False, f"would be reached by its agent at {url}{note}"),
            }
        with self.registry.read() as session:
            agent = agents.newest(_mine(session, task_vars), url, certificate)
        if agent is None or certificate is None:
            raise AnsibleActionFail(
                "there is no secret or no certificate: run the playbook from its beginning"
            )
        self._ask(agent)
        with self.registry.write() as session:
            changes = agents.confirm(session, _mine(session, task_vars), agent, actor(task_vars))
        changed = any(changes.values())
        return {"changed": changed, **self._told("success", changed, f"reached by its agent at {url}{note}")}

    def _ask(self, agent: Agent) -> None:
        deadline = time.monotonic() + int(self._task.args.get("wait", 0))
        while True:
            try:
                health(agent, _HEALTH_SECONDS)
                return
            except AgentError as error:
                if not agent_transport.is_away(error) or time.monotonic() > deadline:
                    raise AnsibleActionFail(f"the node stays reached as before: {error}") from None
            time.sleep(_PAUSE)

    def _forget(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The node is reached by SSH: first in the registry, so that nobody asks an agent that is gone."""
        with self.registry.write(keep=self._keep()) as session:
            changed = agents.forget(session, _mine(session, task_vars), actor(task_vars))
        status = "planned" if self._task.check_mode else "success"
        return {"changed": changed, **self._told(status, changed, "reached by SSH")}

    def _told(self, status: str, changed: bool, message: str) -> dict[str, Any]:
        """For the report."""
        told = {
            "run": str(self._task.args["run"]["id"]),
            "status": status,
            "changed": changed,
            "message": message,
        }
        return {"msg": message, "ansible_facts": {"vpnfleet_agent_told": told}}

    def _outcome(self, task_vars: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What the steps on a node have told."""
        variables = task_vars["hostvars"][name]
        problem = variables.get("vpnfleet_agent_problem")
        if isinstance(problem, str):
            return {"status": "error", "changed": False, "message": " ".join(problem.split())[:500]}
        told = variables.get("ansible_facts", {}).get("vpnfleet_agent_told")
        if isinstance(told, Mapping) and told.get("run") == self._task.args["run"]["id"]:
            return {key: told[key] for key in ("status", "changed", "message")}
        return {"status": "error", "changed": False, "message": "it could not be reached over SSH"}

    def _certificate(self) -> str | None:
        found = certificates(str(self._task.args.get("certificate") or ""))
        return found[0] if found else None


def _mine(session: Session, task_vars: Mapping[str, Any]) -> Node:
    return require_node(session, str(task_vars["inventory_hostname"]))


def _asked(variables: Mapping[str, Any]) -> tuple[str, bool, int | None]:
    """State, rotate, and the port if one is asked for; as they are, for they may look like templates."""
    state = variables.get("state", "present")
    if state not in ("present", "absent"):
        raise Invalid("state", f"{shown(state)} is neither present nor absent")
    try:
        rotate = boolean(variables.get("rotate", False), "rotate")
        port = variables.get("agent_port")
        return str(state), rotate, None if port is None else int(integer(port, "agent_port", 1, 65535))
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None


def _nodes(session: Session, variables: Mapping[str, Any]) -> Sequence[Node]:
    asked = [one["node"] for one in read_requests("drift", variables)]
    known = list_nodes(session)
    if asked == [None]:
        return known
    unknown = sorted(set(asked) - {node.name for node in known})
    if unknown:
        raise NotFound(f"no node is called {', '.join(unknown[:5])}")
    return [node for node in known if node.name in asked]


def _place(node: Node, port: int | None) -> tuple[str, int]:
    """Where its agent is reached: as the registry says, else as Ansible reaches the node."""
    parts = urlsplit(node.agent_url or "")
    host = parts.hostname or node.ansible_host or node.name
    port = port or parts.port or _PORT
    return f"https://{f'[{host}]' if ':' in host else host}:{port}", port


def _answer(
    status: str, changed: bool, message: str, undone: Sequence[str], **details: Any
) -> dict[str, Any]:
    published = {
        "operation": "agent",
        "status": status,
        "changed": changed,
        "message": message,
        **details,
    }
    return {
        "changed": False,
        "msg": message,
        "undone": list(undone),
        "result": published,
        "ansible_stats": {"data": {"vpnfleet": published}, "per_host": False, "aggregate": False},
    }
