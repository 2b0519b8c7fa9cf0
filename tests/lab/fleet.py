"""The lab as a whole: up, down, and what it consists of.

    with Lab(name="mine", nodes=2, devices=3) as lab:
        lab.nodes[0].run(["wg", "show"])

A lab consists of namespaces whose names start with its own, the processes in them, one veth of this
machine (`vl-<name>`) and its state directory. `down` finds all of it by name, so that it cleans up after a
crash, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.lab import limits, sshd
from tests.lab.addresses import MOST_HOSTS_OF_A_KIND, Addresses, pick_block
from tests.lab.device import Device
from tests.lab.errors import LabError
from tests.lab.host import Host, boot, keeper_of, missing_commands, prepare_disk, start_keeper
from tests.lab.inventory import inventory_text
from tests.lab.lock import exclusive
from tests.lab.namespaces import (
    end_processes,
    ip_batch,
    namespaces_of,
    processes_in,
    remove_link,
    remove_namespaces,
)
from tests.lab.node import Node

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_NAME = "lab"

_LABS = ROOT / "var" / "lab"

#: The veth's name is this with a prefix of three characters, and the kernel allows fifteen.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 12

_COMMANDS = ("ip", "mount", "nsenter", "ping", "setsid", "ss", "sshd", "ssh-keygen", "umount", "unshare")


@dataclass(frozen=True)
class _State:
    """What lab.json says; `complete` is false while the lab is being built."""

    block: int
    nodes: int
    devices: int
    complete: bool


class Lab:
    """A lab of `nodes` nodes and `devices` devices; nothing happens before up().

    `state_dir` is where keys, inventory and lab.json go: `var/lab/<name>` of this checkout by default.
    """

    def __init__(
        self, name: str = DEFAULT_NAME, nodes: int = 2, devices: int = 3, state_dir: Path | None = None
    ) -> None:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise LabError(
                f"lab name {name!r}: it begins with a letter and has at most {_LONGEST_NAME} "
                "small letters, digits and single dashes"
            )
        for kind, number in (("nodes", nodes), ("devices", devices)):
            if not 0 <= number <= MOST_HOSTS_OF_A_KIND:
                raise LabError(f"{number} {kind}: a lab has 0 to {MOST_HOSTS_OF_A_KIND}")
        self.name = name
        self.state_dir = _LABS / name if state_dir is None else state_dir.absolute()
        self._counts = (nodes, devices)

    @classmethod
    def running(cls, name: str = DEFAULT_NAME) -> Lab:
        """The lab of this name that is up. Raises LabError when it is not."""
        lab = cls(name)
        state = lab._running_state()
        lab._counts = (state.nodes, state.devices)
        return lab

    @property
    def nodes(self) -> list[Node]:
        state = self._running_state()
        plan = Addresses(state.block)
        numbers = range(1, state.nodes + 1)
        return [Node(self.name, f"node{number}", *plan.node(number), plan) for number in numbers]

    @property
    def devices(self) -> list[Device]:
        state = self._running_state()
        plan = Addresses(state.block)
        numbers = range(1, state.devices + 1)
        return [Device(self.name, f"dev{number}", *plan.device(number), plan) for number in numbers]

    @property
    def hosts(self) -> list[Host]:
        return [*self.nodes, *self.devices]

    @property
    def addresses(self) -> Addresses:
        """The lab's address plan; `gateway` is the "internet" that devices reach through a node."""
        return Addresses(self._running_state().block)

    @property
    def inventory(self) -> Path:
        return self.state_dir / "inventory.yml"

    @property
    def ssh_key(self) -> Path:
        return self.state_dir / "ssh_key"

    @property
    def known_hosts(self) -> Path:
        return self.state_dir / "known_hosts"

    def ansible_env(self) -> dict[str, str]:
        """This process' environment, with Ansible pointed at this checkout's configuration and this lab."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {
            **kept,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOST_KEY_CHECKING": "True",
            "ANSIBLE_INVENTORY": str(self.inventory),
        }

    def up(self) -> None:
        """Build the lab. One that runs is left as it is, but for hosts that are down: those are started.

        Raises LabError, and leaves nothing behind, when anything fails on the way.
        """
        _require_root()
        missing = missing_commands(_COMMANDS)
        if missing:
            raise LabError(
                f"the lab needs {', '.join(missing)}; on Debian: "
                "apt-get install iproute2 iputils-ping mount openssh-client openssh-server util-linux"
            )
        with exclusive(f"lab-{self.name}"):
            state = self._state()
            if state is not None and state.complete and keeper_of(self.name) is not None:
                self._refuse_other_size(state)
                down = self._hosts_down()
                if down:
                    boot(down)
                return
            self._tear_down()
            try:
                self._build()
            except BaseException:
                self._tear_down()
                raise

    def down(self) -> None:
        """Remove the lab, built in full or not, and all that is left of it. None there is no error."""
        _require_root()
        with exclusive(f"lab-{self.name}"):
            self._tear_down()

    def is_up(self) -> bool:
        try:
            self._running_state()
        except LabError:
            return False
        return True

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # -- building

    def _build(self) -> None:
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        limits.hold(f"lab-{self.name}")
        nodes, devices = self._counts
        # Between the look for a free network and its use, no other lab may look.
        with exclusive("networks"):
            state = _State(pick_block(self.name == DEFAULT_NAME), nodes, devices, complete=False)
            self._write_state(state)
            self._build_network(Addresses(state.block))
        keeper = start_keeper(self.name)
        self._make_keys()
        for device in self.devices:
            prepare_disk(device, keeper)
        for node in self.nodes:
            sshd.install(prepare_disk(node, keeper) / "ssh", self._host_key(node), self.ssh_key)
        if self.hosts:
            boot(self.hosts)
        self.inventory.write_text(
            inventory_text(self.nodes, self.ssh_key, self.known_hosts), encoding="utf-8"
        )
        self._write_state(_State(state.block, nodes, devices, complete=True))

    def _build_network(self, plan: Addresses) -> None:
        net, link = f"{self.name}-net", self._link
        # The machine's own namespace may have IPv6 off; the lab's link has it all the same.
        ip_batch([f"netns add {net}", f"link add {link} type veth peer name ctl netns {net}"])
        Path(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6").write_text("0\n", encoding="ascii")
        ip_batch(
            [
                f"address add {plan.controller}/16 dev {link}",
                f"address add {plan.controller6}/64 dev {link} nodad",
                f"link set {link} up",
            ]
        )
        ip_batch(
            [
                "link set lo up",
                "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"address add {plan.gateway}/16 dev br0",
                f"address add {plan.gateway6}/64 dev br0 nodad",
                "link set br0 up",
                "link set ctl master br0 up",
            ],
            net,
        )

    def _make_keys(self) -> None:
        self._host_keys.mkdir(mode=0o700)
        sshd.make_keys([self.ssh_key, *(self._host_key(node) for node in self.nodes)])
        self.known_hosts.write_text(
            sshd.known_hosts(
                ((node.name, node.address, node.address6), self._host_key(node)) for node in self.nodes
            ),
            encoding="ascii",
        )

    # -- removing

    def _tear_down(self) -> None:
        namespaces = namespaces_of(self.name)
        # While the links are up: sshd hangs up as it dies, and the controller's connections end.
        end_processes(namespaces)
        state = self._state()
        if state is not None:
            _end_ssh_clients(Addresses(state.block))
        remove_link(self._link)
        remove_namespaces(namespaces)
        limits.release(f"lab-{self.name}")
        self._remove_state()

    # -- state

    @property
    def _link(self) -> str:
        return f"vl-{self.name}"

    @property
    def _state_file(self) -> Path:
        return self.state_dir / "lab.json"

    @property
    def _host_keys(self) -> Path:
        return self.state_dir / "host_keys"

    def _host_key(self, node: Node) -> Path:
        return self._host_keys / node.name

    def _remove_state(self) -> None:
        """Remove what a lab writes, and no more: the directory may be one that somebody chose."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._host_keys)
        public_key = self.ssh_key.with_name(f"{self.ssh_key.name}.pub")
        for path in (self.ssh_key, public_key, self.known_hosts, self.inventory, self._state_file):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it never was, or there is more in it
            self.state_dir.rmdir()
            if self.state_dir.parent == _LABS:
                _LABS.rmdir()

    def _state(self) -> _State | None:
        try:
            return _State(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # none, or cut short by a crash
            return None

    def _write_state(self, state: _State) -> None:
        said = {
            "block": state.block,
            "nodes": state.nodes,
            "devices": state.devices,
            "complete": state.complete,
        }
        self._state_file.write_text(json.dumps(said) + "\n", encoding="utf-8")

    def _running_state(self) -> _State:
        state = self._state()
        if state is None or keeper_of(self.name) is None:
            raise LabError(f"lab {self.name} is not up")
        return state

    def _refuse_other_size(self, state: _State) -> None:
        if (state.nodes, state.devices) != self._counts:
            raise LabError(
                f"lab {self.name} is up with {state.nodes} nodes and {state.devices} devices; "
                "take it down first"
            )

    def _hosts_down(self) -> list[Host]:
        alive = processes_in([host.namespace for host in self.hosts])
        return [host for host in self.hosts if host.namespace not in alive]


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces, mounts and links")


def _end_ssh_clients(plan: Addresses) -> None:
    """End the controller's ssh that still hold a connection to the lab (ControlPersist keeps them)."""
    for network in (plan.network, plan.network6):
        shown = subprocess.run(["ss", "-Htnp", "dst", network], capture_output=True, text=True).stdout
        for pid in re.findall(r'\("ssh",pid=(\d+),', shown):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
