"""wg_drift on the nodes of a simulated fleet, and the playbooks drift and reconcile.

It is the module's own work on what the nodes run: only reading and applying are stood in for. wg_instance is told, as
ever, what it is to do; what it leaves open stays as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ansible.errors import AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.action import (
    operation_drift,
    operation_report,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift as wg_drift
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift_repair, traces
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Edit, Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired, check_peers
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack, parameters
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    InterfaceState,
    Link,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import LinkUp
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.expected import as_asked
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import (
    SimulatedNode,
    Weather,
    nothing,
    public_key_of,
)
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import (
    Controller,
    WatchedRegistry,
)

MTU = 1420


def state_of(node: SimulatedNode, name: str) -> InterfaceState:
    """What there is of an interface on a node; its file is as what runs."""
    there = node.up.get(name)
    if there is None:
        return InterfaceState()
    peers, addresses = check_peers(there["peers"], "peers"), tuple(there["addresses"])
    mtu = there.get("mtu", MTU)
    return InterfaceState(
        device=Device(
            there["private_key"], public_key_of(there["private_key"]), there["listen_port"], 0, peers
        ),
        link=Link(True, mtu, frozenset(addresses)),
        file="as what runs",
        config=Config(there["private_key"], there["listen_port"], addresses, peers),
    )


def _is_whole(_devices: object, _source: object = None) -> None:
    """Nothing is cut short here."""


def run_wg_drift(node: SimulatedNode, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """What wg_drift answers on a node, and what it does there."""

    def converge(wanted: Sequence[Desired], check_mode: bool, edit: Edit) -> list[Outcome]:
        return [_mend(node, desired, check_mode, edit) for desired in wanted]

    def read_node(_names: object) -> Node:
        return Node(
            links={name: Link(True, MTU, frozenset()) for name in node.up},
            kinds=dict.fromkeys(node.up, "wireguard"),
            devices={name: device for name in node.up if (device := state_of(node, name).device)},
        )

    def states_of(_read: Node, wanted: Sequence[Desired]) -> dict[str, InterfaceState]:
        return {desired.name: state_of(node, desired.name) for desired in wanted}

    with (
        mock.patch.object(traces, "traces", return_value={}),
        mock.patch.multiple(wg_drift, states_of=states_of, require_whole=_is_whole),
        mock.patch.multiple(drift_repair, read_node=read_node, converge=converge, require_whole=_is_whole),
    ):
        return drift_repair.run(parameters(arguments), check, False)


def _mend(node: SimulatedNode, desired: Desired, check_mode: bool, edit: Edit) -> Outcome:
    outcome = Outcome(desired, before=state_of(node, desired.name))
    try:
        edited = edit(desired, outcome.before)
    except WireGuardError as error:
        outcome.error = str(error)
        return outcome
    if edited is None:
        outcome.wanted = outcome.before
        return outcome
    assert edited.peers is not None
    assert outcome.before.device is not None
    device = dataclasses.replace(outcome.before.device, peers=edited.peers)
    outcome.wanted = dataclasses.replace(outcome.before, device=device)
    if device == outcome.before.device:
        return outcome
    outcome.steps = [LinkUp()]  # which ones does not matter here
    if not check_mode:
        node.up[desired.name]["peers"] = [
            {
                "public_key": peer.public_key,
                "allowed_ips": list(peer.allowed_ips),
                "persistent_keepalive": peer.persistent_keepalive,
                **({"preshared_key": peer.preshared_key} if peer.preshared_key else {}),
            }
            for peer in edited.peers.values()
        ]
    return outcome


class DriftController(Controller):
    """A controller that runs drift and reconcile, too; `modules` says which node was called for what."""

    modules: list[tuple[str, str]]

    def play(
        self, kind: str, *, limit: Iterable[str] | None = None, check: bool = False, **variables: Any
    ) -> dict[str, Any]:
        """As ever."""
        if kind not in ("drift", "reconcile"):
            return super().play(kind, limit=limit, check=check, **variables)
        self.modules = []
        run, hosts = self.begin(kind, limit, check, variables)
        facts: dict[str, Any] = {}
        if kind == "drift":
            # One task for all of them.
            looked = self._look(run, {**variables, **self._vars({})}, check)
            facts["localhost"] = looked.get("ansible_facts", {})
        else:
            for name in self.order([name for name in run["nodes"] if name in hosts]):
                mended = self._look(run, {**variables, **self._vars({}), "inventory_hostname": name}, check)
                facts[name] = mended.get("ansible_facts", {})
        answer = self._task(operation_report, {"run": run}, {**variables, **self._vars(facts)}, check)
        self.undone = answer["undone"]
        result: dict[str, Any] = answer["result"]
        return result

    def report(self, node: str) -> dict[str, Any]:
        """What a look at a node finds."""
        found: dict[str, Any] = self.one("drift", node=node)["data"]
        return found

    def reconcile(self, *nodes: str, **asked: Any) -> list[dict[str, Any]]:
        """The results, one after the other."""
        return [self.one("reconcile", node=name, **asked) for name in nodes]

    @staticmethod
    def _vars(facts: dict[str, Any]) -> dict[str, Any]:
        def raw_get(name: str) -> dict[str, Any]:
            return {"ansible_facts": facts.get(name, {})}

        return {"hostvars": SimpleNamespace(raw_get=raw_get)}

    def _look(self, run: dict[str, Any], task_vars: dict[str, Any], check: bool) -> dict[str, Any]:
        call, look = self._call, self._call_probe

        class Action(operation_drift.ActionModule):
            def _execute_module(self, **named: Any) -> dict[str, Any]:
                return call(named, check)

            def looker(self, limit: float) -> operation_drift.Look:  # noqa: ARG002
                return lambda name, wanted, _variables: partial(look, name, wanted)

        task = SimpleNamespace(
            args={"run": run}, check_mode=check, async_val=0, diff=False, action="operation"
        )
        action = Action(task, SimpleNamespace(), SimpleNamespace(), DataLoader(), None, None)
        action.registry = WatchedRegistry(self.registry.engine, at=self.at)
        answer: dict[str, Any] = action.work(task_vars)
        self.shown.append(answer)
        return answer

    def _call_probe(self, name: str, wanted: Sequence[wg_drift.Expected]) -> dict[str, Any]:
        """What comes of a reading of a node by a shell there: the same as of its module."""
        arguments = {"_packed": pack({"interfaces": [as_asked(one) for one in wanted]}), "complete": True}
        answer = self._call(
            {
                "task_vars": {"inventory_hostname": name},
                "module_name": "vpnfleet.wireguard.wg_drift",
                "module_args": arguments,
            },
            check=False,
        )
        if answer.get("failed"):
            raise WireGuardError(answer["msg"])
        return answer

    def _call(self, named: dict[str, Any], check: bool) -> dict[str, Any]:
        name = str(named["task_vars"]["inventory_hostname"])
        module = named["module_name"].rpartition(".")[2]
        node = self.fleet.nodes[name]
        self.modules.append((name, module))
        if module == "wg_instance":
            sent = parameters(named["module_args"])
            return self._call_instance(name, sent["instances"], check)
        self.at(f"before {name} is called")
        if node.weather is Weather.UNREACHABLE:
            raise AnsibleConnectionFailure(f"Failed to connect to the host via ssh: {name} is down\r\nmore")
        if node.weather in (Weather.CRASHES, Weather.REFUSES):
            return {"failed": True, "msg": "wg7 is there but cannot be read: no answer"}
        answer = run_wg_drift(node, named["module_args"], check)
        self.at(f"while {name} is called")
        if node.weather is Weather.LOST:
            raise AnsibleConnectionFailure(f"Connection to {name} closed by remote host.")
        return answer

    def _call_instance(self, name: str, instances: list[dict[str, Any]], check: bool) -> dict[str, Any]:
        up = self.fleet.nodes[name].up
        told = []
        for wanted in instances:
            before = {peer["public_key"] for peer in up.get(wanted["name"], {"peers": ()})["peers"]}
            if wanted["state"] == "present" and "peers" not in wanted:
                wanted = {**wanted, "peers": up[wanted["name"]]["peers"], "purge_peers": True}
            now = {peer["public_key"] for peer in wanted.get("peers", ())}
            told.append((wanted, sorted(now - before)))
        kept = copy.deepcopy(self.fleet.nodes[name])
        answer = self.fleet.call(name, [wanted for wanted, _ in told], nothing if check else self.at)
        if check:
            self.fleet.nodes[name] = kept
        for one, (_, added) in zip(answer.get("instances", ()), told, strict=False):
            one["peers_added"] = [] if "error" in one else added
        return answer


def with_drift(controller: Controller) -> DriftController:
    """The same controller, which runs drift and reconcile, too."""
    return DriftController(controller.registry, controller.fleet)


def interface_of(controller: Controller, name: str) -> str:
    """The interface of the instance of this name."""
    with controller.registry.read() as session:
        return session.scalars(select(Instance).where(Instance.name == name)).one().interface
