"""Simulated nodes' interfaces in the place of real ones, for what converges them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import converge, lock
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, InterfaceState
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import Step
from tests.unit.plugins.module_utils.generated import private_key, public_key_of
from tests.unit.plugins.module_utils.simulator import SimulatedNode


class Fleet:
    """Interfaces by name, and after how many steps one fails (once, or for good)."""

    def __init__(self) -> None:
        self.nodes: dict[str, SimulatedNode] = {}
        self.applied: list[tuple[str, Step]] = []
        self.fails_at: int | None = None
        self.fails_for = ""
        self.for_good = False
        self.ports: dict[str, int] = {}
        self.taken: set[int] = set()
        self.cut_short: set[str] = set()  # whose dump lacks peers
        self.read_twice: list[str] = []

    def has(self, name: str, state: InterfaceState) -> None:
        self.nodes[name] = SimulatedNode(state)

    def fail(self, name: str, at: int, for_good: bool = False) -> None:
        """From now on: its step after `at` others, once or for good."""
        self.fails_for, self.fails_at, self.for_good = name, at, for_good

    def require_whole(self, devices: dict[str, Device]) -> None:
        self.read_twice += devices
        if self.cut_short & devices.keys():
            raise IncompleteDump("wg show peers names others")

    def apply(self, step: Step, name: str, _path: str, _wanted: object) -> None:
        self.applied.append((name, step))
        if self.fails_at is not None and name in ("", self.fails_for):
            self.fails_at -= 1
            if self.fails_at < 0:
                if not self.for_good:
                    self.fails_at = None
                parts = self.nodes[name].parts(step)
                next(parts, None)  # half of it is done
                raise CommandFailed("ip", 1, "RTNETLINK answers: No buffer space available")
        self.nodes[name].apply(step)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    made = Fleet()
    monkeypatch.setattr(lock, "FOLDER", str(tmp_path))
    monkeypatch.setattr(converge, "read_node", lambda _names: Node())
    monkeypatch.setattr(
        converge, "read_units", lambda wanted: {one.name: made.nodes[one.name].now.unit for one in wanted}
    )
    monkeypatch.setattr(
        converge, "interface_state", lambda _node, name, _path, _unit, _known=None: made.nodes[name].state()
    )
    monkeypatch.setattr(converge, "apply_step", made.apply)
    monkeypatch.setattr(converge, "require_whole", made.require_whole)
    monkeypatch.setattr(converge, "public_key_of", public_key_of)
    monkeypatch.setattr(converge, "new_private_key", lambda: private_key(9))
    monkeypatch.setattr(converge, "choose_port", lambda: 45678)
    monkeypatch.setattr(converge, "have_tools", lambda: True)
    monkeypatch.setattr(converge, "require", lambda program: program)
    monkeypatch.setattr(converge, "listen_ports", lambda: made.ports)
    monkeypatch.setattr(converge, "port_is_free", lambda port: port not in made.taken)
    return made
