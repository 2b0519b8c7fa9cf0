# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing interfaces to what is asked for: read, plan, apply, read back, and undo what went wrong."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import atomic_file, lock, systemd
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.apply import apply_step
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import require, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.conflicts import (
    held_networks,
    refuse_conflicts,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    ApplyFailed,
    InvalidInput,
    Refused,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import new_private_key
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.ownership import is_foreign
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import plan, target
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import (
    Node,
    free_port,
    have_tools,
    interface_state,
    listen_ports,
    port_is_free,
    read_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import summary
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.second_reading import require_whole
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import HERE, Source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Unit
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    CreateLink,
    SetDevice,
    StartUnit,
    Step,
)

# The kernel does more than it is told: with an interface's last IPv4 address go all its IPv4 routes. What the first
# pass leaves is done by the second; what is left then is a failure.
PASSES = 2


@dataclass
class Outcome:
    """What was (or, in check mode, would be) done to one interface."""

    desired: Desired
    before: InterfaceState = field(default_factory=InterfaceState)
    wanted: InterfaceState = field(default_factory=InterfaceState)
    steps: List[Step] = field(default_factory=list)
    error: Optional[str] = None
    cause: Optional[Exception] = None  # of the error
    warning: Optional[str] = None


def public_key_of(private_key: str) -> str:
    """The public key of a private key, by ``wg pubkey``; empty on a node that has no wg yet."""
    return run(["wg", "pubkey"], stdin=private_key + "\n").stdout.strip() if have_tools() else ""


def choose_port() -> int:
    """A port for a new interface: free, and of no other interface."""
    return free_port(listen_ports().values() if have_tools() else ())


# What is asked for, worked out from what is there: for changes that are relative, as "add this peer" is.
# None: nothing is to be done.
Edit = Callable[[Desired, InterfaceState], Optional[Desired]]
Read = Callable[[List[str]], Node]


def converge(
    instances: Sequence[Desired],
    check_mode: bool = False,
    edit: Optional[Edit] = None,
    read: Optional[Read] = None,
    known: Optional[Mapping[str, InterfaceState]] = None,
) -> List[Outcome]:
    """Bring each instance to what is asked for; in check mode, only say how.

    `edit`, if given, completes each instance once its present state is known, under the interface's lock. `read` reads
    the node in another way than read_node does. `known` are the states that interfaces are likely to be in: a file that
    is as in there is not parsed.

    Instances stand for themselves: one that cannot be served gets an `error` in its outcome, and is left as it was,
    while the others are served. Raises WireGuardError when nothing at all can be done.
    """
    check_batch(instances)
    names = [desired.name for desired in instances]
    held: ContextManager[Dict[str, str]] = nullcontext({}) if check_mode else lock.locked(names)
    with held as busy:
        if not check_mode:
            # Known before the first step: without them, what was begun could not even be undone.
            require("wg")
            require("ip")
        if have_tools():
            node = read(names) if read else read_node(names)
        else:
            # A node that is still to be prepared: nothing runs there yet.
            node = Node()
        units = read_units(instances)
        return [
            Outcome(desired, error=busy[desired.name])
            if desired.name in busy
            else _converge_one(
                desired, node, units[desired.name], check_mode, edit, read, (known or {}).get(desired.name)
            )
            for desired in instances
        ]


def check_batch(instances: Sequence[Desired]) -> None:
    """Refuse what contradicts itself within one call: a name or a port asked for twice."""
    names: Dict[str, int] = {}
    ports: Dict[int, str] = {}
    for index, desired in enumerate(instances):
        if desired.name in names:
            raise InvalidInput(f"instances[{index}].name", f"{desired.name} is there twice")
        names[desired.name] = index
        if desired.state == "present" and desired.listen_port:
            other = ports.setdefault(desired.listen_port, desired.name)
            if other != desired.name:
                raise InvalidInput(
                    f"instances[{index}].listen_port",
                    f"{desired.listen_port} is asked for by {other} and by {desired.name}",
                )


def read_units(instances: Sequence[Desired], source: Source = HERE) -> Dict[str, Optional[Unit]]:
    """The unit of each instance by its name."""
    units: Dict[str, Optional[Unit]] = {}
    for folder in sorted({desired.config_dir for desired in instances}):
        units.update(source.units([d.name for d in instances if d.config_dir == folder], folder))
    return units


def _converge_one(
    desired: Desired,
    node: Node,
    unit: Optional[Unit],
    check_mode: bool,
    edit: Optional[Edit],
    read: Optional[Read],
    known: Optional[InterfaceState],
) -> Outcome:
    outcome = Outcome(desired)
    try:
        there = interface_state(node, desired.name, desired.config_path, unit, known)
        outcome.before = replace(there, unfinished=lock.unfinished(desired.name))
        if edit is not None:
            edited = edit(desired, outcome.before)
            if edited is None:
                outcome.wanted = outcome.before
                return outcome
            outcome.desired = desired = edited
        if is_foreign(desired, outcome.before, public_key_of):
            if not check_mode and not outcome.before.unfinished:
                lock.forget(desired.name)  # nothing of this call stays beside what is somebody else's
            return _left_alone(outcome)
        outcome.wanted = target(
            desired, outcome.before, public_key_of, new_private_key, choose_port, node.default_mtu
        )
        outcome.steps = plan(outcome.before, outcome.wanted)
        if have_tools():
            _check_port(desired.name, outcome.steps, outcome.wanted)
        if outcome.steps:
            _require_whole(outcome, edit is not None)
            held = held_networks(node.links, node.routes, node.wireguard(), desired.name)
            refuse_conflicts(desired.name, outcome.before, outcome.wanted, held)
        if not check_mode:
            if outcome.steps:
                _carry_out(outcome, read)
            elif outcome.before.unfinished:
                lock.end(desired.name)
            if desired.state == "absent":
                forget(desired)
        node.now(desired.name, outcome.wanted)
    except (WireGuardError, OSError) as error:
        outcome.error, outcome.cause = str(error), error
    return outcome


def _require_whole(outcome: Outcome, edited: bool) -> None:
    """Make sure that no peer was overlooked where those stay that were found: the rest would be thrown out. A file that
    names the same ones is a second witness already."""
    desired, device, config = outcome.desired, outcome.before.device, outcome.before.config
    keeps_some = edited or desired.peers is None or not desired.purge_peers
    if device is None or outcome.wanted.device is None or not keeps_some:
        return
    if config is None or config.peers.keys() != device.peers.keys():
        require_whole({desired.name: device})


def _left_alone(outcome: Outcome) -> Outcome:
    """The outcome for an interface that belongs to somebody else: it stays as it is. Raises Refused when it was to
    be present, as it cannot be."""
    name = outcome.desired.name
    if outcome.desired.state == "present":
        raise Refused(
            f"{name} is there already with another key; it belongs to somebody else and is left as it is: "
            f"use another name, or remove the interface and {outcome.desired.config_path} if nobody needs them"
        )
    # What an unfinished run of its owner has begun is not to be told as a change of ours.
    outcome.before = replace(outcome.before, unfinished="")
    outcome.wanted = outcome.before
    outcome.warning = f"{name} has another key than the one given and is left alone"
    return outcome


def forget(desired: Desired) -> None:
    """Remove the last traces of an interface that is gone: drop-ins, what a killed run left, the lock."""
    if systemd.runs():
        systemd.forget(desired.name)
    if os.path.isdir(desired.config_dir):
        atomic_file.remove(desired.config_path)
    lock.forget(desired.name)


def _check_port(name: str, steps: Sequence[Step], wanted: InterfaceState) -> None:
    """Refuse a port that something else on the node holds: wireguard-go would say so only in its log."""
    if wanted.device is None or not any(
        isinstance(step, (CreateLink, StartUnit)) or (isinstance(step, SetDevice) and step.listen_port)
        for step in steps
    ):
        return
    port = wanted.device.listen_port
    holder = next((other for other, held in listen_ports().items() if held == port and other != name), None)
    if holder:
        raise Refused(f"listen_port {port} of {name} is in use by {holder} on this node")
    if not port_is_free(port):
        raise Refused(f"listen_port {port} of {name} is in use by another program on this node")


def states_of(node: Node, instances: Sequence[Desired]) -> Dict[str, InterfaceState]:
    """The state of each instance on a node by its name. Raises WireGuardError when one cannot be read."""
    units = read_units(instances, node.source)
    return {d.name: interface_state(node, d.name, d.config_path, units[d.name]) for d in instances}


def _read_again(desired: Desired, known: InterfaceState, read: Optional[Read]) -> InterfaceState:
    """The state of one interface, read now; `known` is what it is likely to be."""
    unit = read_units([desired])[desired.name]
    node = read([desired.name]) if read else read_node([desired.name])
    return interface_state(node, desired.name, desired.config_path, unit, known)


def _carry_out(outcome: Outcome, read: Optional[Read]) -> None:
    desired, before, wanted = outcome.desired, outcome.before, outcome.wanted
    creating = before.unfinished == "creating" or CreateLink() in outcome.steps
    lock.begin(desired.name, "creating" if creating else "changing")
    try:
        left = outcome.steps
        for _attempt in range(PASSES):
            _apply(desired, left, wanted)
            left = plan(_read_again(desired, wanted, read), wanted)
            if not left:
                break
        else:
            raise ApplyFailed(
                f"read back after applying, {desired.name} still needs: {', '.join(summary(left))}"
            )
    except (WireGuardError, OSError) as error:
        undone, told = _undo(desired, before, read)
        if undone and not before.unfinished:
            lock.end(desired.name)
        raise ApplyFailed(f"{error} ({told})") from None
    lock.end(desired.name)


def _apply(desired: Desired, steps: Sequence[Step], wanted: InterfaceState) -> None:
    for step in steps:
        apply_step(step, desired.name, desired.config_path, wanted.device)


def _undo(desired: Desired, before: InterfaceState, read: Optional[Read]) -> Tuple[bool, str]:
    """Bring the interface back to `before`; returns whether it is, and what to tell of it."""
    try:
        left = plan(_read_again(desired, before, read), before)
        # Starting the unit brings back what the file says, which need not be what ran: hence a second time.
        for _attempt in range(2):
            if left:
                _apply(desired, left, before)
                left = plan(_read_again(desired, before, read), before)
    except (WireGuardError, OSError) as error:
        return False, f"undoing it failed too: {error}; run again when the cause is mended"
    if left:
        return False, f"undone, but for: {', '.join(summary(left))}"
    return True, f"undone: {desired.name} is as it was before"
