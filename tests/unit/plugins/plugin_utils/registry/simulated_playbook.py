"""Runs the operations as their playbooks do, by the real action plugins, on a simulated fleet.

What Ansible does between them (templates, connections, modules) is the end-to-end tests' affair.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from ansible.parsing.dataloader import DataLoader
from sqlalchemy import select, update
from sqlalchemy.orm import Session, joinedload

from ansible_collections.vpnfleet.wireguard.plugins.action import (
    operation_begin,
    operation_converge,
    operation_report,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import errors
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Instance,
    Operation,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, nothing

Row = TypeVar("Row", bound=Base)

STAGES = {
    "provision": ("apply",),
    "disconnect": ("apply",),
    "transfer": ("arrive", "leave"),
    "remove": ("apply",),
}


class Killed(BaseException):
    """SIGKILL, for a run within this process."""


@dataclass(frozen=True)
class WatchedRegistry(Registry):
    """Tells at each point of a transaction that writes where it is, so that a run can end right there."""

    at: Callable[[str], None] = nothing

    @contextmanager
    def write(self, keep: bool = True) -> Iterator[Session]:
        """As the registry's."""
        self.at("before a transaction")
        with super().write(keep) as session:
            yield session
            session.flush()
            self.at("before a commit")
        self.at("after a transaction")


@dataclass
class Controller:
    """A controller with its registry and the fleet that it can reach.

    `at` is told each point at which a run might be killed; `order` in which order the nodes of a stage have their turn.
    """

    registry: Registry
    fleet: SimulatedFleet
    at: Callable[[str], None] = nothing
    order: Callable[[list[str]], Iterable[str]] = sorted
    shown: list[dict[str, Any]] = field(default_factory=list)

    def play(
        self, kind: str, *, limit: Iterable[str] | None = None, check: bool = False, **variables: Any
    ) -> dict[str, Any]:
        """The result object of a playbook. What its tasks answered is in `shown`. Raises RegistryError."""
        run, hosts = self.begin(kind, limit, check, variables)
        for stage in STAGES[kind]:
            for name in self.order([name for name in run["stages"].get(stage, []) if name in hosts]):
                try:
                    self._task(
                        operation_converge,
                        {"run": run, "stage": stage},
                        {**variables, "inventory_hostname": name},
                        check,
                    )
                except errors.NotUsable:
                    # A host whose task fails is in no later play; the last one is on the controller.
                    hosts.remove(name)
        result: dict[str, Any] = self.tell(run, variables, check)["result"]
        return result

    def begin(
        self, kind: str, limit: Iterable[str] | None, check: bool, variables: dict[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """The run, as the first task has recorded it, and the hosts that it may touch. Raises RegistryError."""
        hosts = sorted(self.fleet.nodes if limit is None else limit)
        self.shown = []
        asked = {**variables, "ansible_play_hosts_all": ["localhost", *hosts]}
        return require_taken_on(self._task(operation_begin, {"operation": kind}, asked, check)), hosts

    def tell(
        self, run: dict[str, Any], variables: dict[str, Any] | None = None, check: bool = False
    ) -> dict[str, Any]:
        """What the last task answers."""
        return self._task(operation_report, {"run": run}, variables or {}, check)

    def one(self, kind: str, **variables: Any) -> dict[str, Any]:
        """The result of the only operation of a run."""
        (result,) = self.play(kind, **variables)["operations"]
        found: dict[str, Any] = result
        return found

    def instance(self, name: str) -> Instance:
        """A customer's instance, with its node."""
        with self.registry.read() as session:
            query = select(Instance).where(Instance.name == name).options(joinedload(Instance.node))
            return session.scalars(query).one()

    def rows(self, what: type[Row]) -> list[Row]:
        """All of a table, in the order of its key: PostgreSQL has none of its own."""
        with self.registry.read() as session:
            return list(session.scalars(select(what).order_by(*what.__table__.primary_key)))

    def up(self, name: str) -> list[str]:
        """The nodes on which a customer's instance is up."""
        return self.fleet.where(self.instance(name).interface)

    def killed(self, when: str | int, kind: str, **variables: Any) -> bool:
        """Whether the run of a playbook was killed: at the point of this name or number, if it came there."""
        points = 0

        def at(point: str) -> None:
            nonlocal points
            points += 1
            if when in (point, points):
                raise Killed

        self.at = at
        try:
            self.play(kind, **variables)
        except Killed:
            # What a process that is no more had begun.
            with self.registry.write() as session:
                session.execute(
                    update(Operation).where(Operation.state == "running").values(owner=token_of_the_dead())
                )
            return True
        finally:
            self.at = nothing
        return False

    def _task(
        self, plugin: Any, arguments: dict[str, Any], task_vars: dict[str, Any], check: bool
    ) -> dict[str, Any]:
        fleet, at = self.fleet, self.at

        class Action(plugin.ActionModule):  # type: ignore[misc]
            def _execute_module(self, **named: Any) -> dict[str, Any]:
                assert named["module_name"] == "vpnfleet.wireguard.wg_instance"
                assert not check or self._task.check_mode
                if check:
                    return {"changed": True, "instances": []}
                sent = parameters(named["module_args"])
                return fleet.call(named["task_vars"]["inventory_hostname"], sent["instances"], at)

        task = SimpleNamespace(args=arguments, check_mode=check, async_val=0, diff=False, action="operation")
        action = Action(task, SimpleNamespace(), SimpleNamespace(), DataLoader(), None, None)
        action.registry = WatchedRegistry(self.registry.engine, at=self.at)
        answer: dict[str, Any] = action.work(task_vars)
        self.shown.append(answer)
        return answer


def require_taken_on(begun: dict[str, Any]) -> dict[str, Any]:
    """The run that has begun. Raises the RegistryError by which it was refused."""
    run: dict[str, Any] = begun["ansible_facts"]["vpnfleet_run"]
    refused = run.get("refused")
    if refused is None:
        return run
    reason = getattr(errors, refused["reason"])
    raise reason("", refused["message"]) if reason is errors.Invalid else reason(refused["message"])


def token_of_the_dead() -> str:
    """The token of a process that was killed."""
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as process:
        token = process_token(process.pid)
        process.kill()
    return token
