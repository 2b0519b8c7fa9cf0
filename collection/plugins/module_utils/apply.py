# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out the steps of a plan on this node."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import List, Sequence, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import atomic_file, systemd
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import (
    find,
    in_memory,
    run,
    run_hook,
    spawn_daemon,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import (
    render_for_wg,
    render_peers_for_wg,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed, WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import HERE
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, Peer, Route
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    AdoptUnit,
    CreateLink,
    DeleteLink,
    EnableUnit,
    LinkUp,
    RemoveFile,
    RunHooks,
    SetAddresses,
    SetDevice,
    SetMtu,
    SetPeers,
    SetRoutes,
    StartUnit,
    Step,
    StopUnit,
    WriteFile,
)

# `wg set` takes many peers in one call; argv and the descriptors of preshared keys bound how many.
PEERS_PER_CALL = 200
# So many changed peers are quicker written into a file for wg than named to it one by one.
SYNCCONF_FROM = 1000
# Linux takes no single argument longer than 128 KiB.
LONGEST_ARGUMENT = 120_000
# The kernel's settings of each interface.
SETTINGS = "/proc/sys/net/ipv4/conf"


def apply_step(step: Step, name: str, config_path: str, wanted: Device | None) -> None:
    """Carry out one step on interface `name`. `wanted` is what the device shall be in the end.

    Raises WireGuardError when it fails; then the step may have been done in part.
    """
    if isinstance(step, WriteFile):
        atomic_file.write(config_path, step.text)
    elif isinstance(step, RemoveFile):
        atomic_file.remove(config_path)
    elif isinstance(step, RunHooks):
        _run_hooks(step, name)
    elif isinstance(step, StartUnit):
        systemd.start(name)
    elif isinstance(step, StopUnit):
        systemd.stop(name)
    elif isinstance(step, AdoptUnit):
        systemd.adopt(name)
    elif isinstance(step, EnableUnit):
        systemd.enable(name, step.enabled)
    elif isinstance(step, CreateLink):
        _create_link(name)
    elif isinstance(step, DeleteLink):
        _delete_link(name)
    elif isinstance(step, SetDevice):
        _set_device(step, name)
    elif isinstance(step, SetPeers):
        if wanted is None:
            raise AssertionError("peers are set only on an interface that shall be")
        _set_peers(step, name, wanted)
    elif isinstance(step, SetAddresses):
        if step.remove:
            _keep_secondaries(name)
        lines = [f"address add {address} dev {name}" for address in step.add]
        lines += [f"address del {address} dev {name}" for address in step.remove]
        _batch([], lines)
    elif isinstance(step, SetMtu):
        run(["ip", "link", "set", "dev", name, "mtu", str(step.mtu)])
    elif isinstance(step, LinkUp):
        run(["ip", "link", "set", "dev", name, "up"])
    elif isinstance(step, SetRoutes):
        _set_routes(step, name)
    else:
        raise AssertionError(f"no way to carry out {type(step).__name__}")


def _keep_secondaries(name: str) -> None:
    """Unless told otherwise, the kernel removes with an IPv4 address all those that were added later within its
    subnet, and so with 10.0.0.1/24 the 10.0.0.2/24 that takes its place."""
    try:
        with open(f"{SETTINGS}/{name}/promote_secondaries", "w", encoding="ascii") as file:
            file.write("1\n")
    except OSError:
        pass  # should it matter, reading back finds the address missing


def _batch(options: List[str], lines: Sequence[str]) -> None:
    if lines:
        run(["ip", *options, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _run_hooks(step: RunHooks, name: str) -> None:
    for command in step.commands:
        # A failing hook must not keep an interface from going; on the way up it is an error, as for wg-quick.
        run_hook(command.replace("%i", name), check=step.name in ("pre_up", "post_up"))


def _create_link(name: str) -> None:
    try:
        run(["ip", "link", "add", "dev", name, "type", "wireguard"])
        return
    except CommandFailed as error:
        if os.path.exists(f"/sys/class/net/{name}"):
            raise
        userspace = os.environ.get("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go")
        if find(userspace) is None:
            raise WireGuardError(
                f"{name} cannot be made: the kernel has no WireGuard ({error.stderr.strip()}) and {userspace} is not "
                "installed (the role vpnfleet.wireguard.node does it)"
            ) from None
    spawn_daemon([userspace, name])


def _delete_link(name: str) -> None:
    if os.path.exists(f"/sys/class/net/{name}"):
        run(["ip", "link", "delete", "dev", name])
    # wireguard-go notices a moment later; a new interface of the same name must not meet its socket.
    deadline = time.monotonic() + 5
    while HERE.has_socket(name) and time.monotonic() < deadline:
        time.sleep(0.01)


def _set_device(step: SetDevice, name: str) -> None:
    argv = ["wg", "set", name]
    if step.listen_port is not None:
        argv += ["listen-port", str(step.listen_port)]
    if step.fwmark is not None:
        argv += ["fwmark", str(step.fwmark)]
    if step.private_key is None:
        run(argv)
        return
    with in_memory(step.private_key + "\n") as (path, descriptor):
        run([*argv, "private-key", path], descriptors=[descriptor])


def _set_peers(step: SetPeers, name: str, wanted: Device) -> None:
    too_long = any(sum(map(len, peer.allowed_ips)) > LONGEST_ARGUMENT for peer in step.put)
    by_file = too_long or len(step.put) + len(step.remove) >= SYNCCONF_FROM
    endpoints = {peer.public_key: peer.endpoint for peer in step.put if peer.endpoint}
    if by_file and len(step.put) == len(wanted.peers):
        with in_memory(render_for_wg(wanted, endpoints)) as (path, descriptor):
            run(["wg", "syncconf", name, path], descriptors=[descriptor])
        return
    changes: List[Tuple[str, Peer | None]] = [(key, None) for key in step.remove]
    if not by_file:
        changes += [(peer.public_key, peer) for peer in step.put]
    _wg_set_all(name, changes, frozenset(step.added))
    if by_file and step.put:
        # syncconf takes the AllowedIPs off every peer for a moment, and packets of those that do not change are lost.
        # addconf touches no other peer than those in its file.
        with in_memory(render_peers_for_wg(step.put, endpoints)) as (path, descriptor):
            run(["wg", "addconf", name, path], descriptors=[descriptor])


def _wg_set_all(name: str, changes: Sequence[Tuple[str, Peer | None]], added: frozenset[str]) -> None:
    for start in range(0, len(changes), PEERS_PER_CALL):
        _wg_set(name, changes[start : start + PEERS_PER_CALL], added)


def _wg_set(name: str, changes: Sequence[Tuple[str, Peer | None]], added: frozenset[str]) -> None:
    argv = ["wg", "set", name]
    descriptors: List[int] = []
    with ExitStack() as stack:
        for key, peer in changes:
            argv += ["peer", key]
            if peer is None:
                argv.append("remove")
                continue
            if peer.preshared_key:
                path, descriptor = stack.enter_context(in_memory(peer.preshared_key + "\n"))
                descriptors.append(descriptor)
                argv += ["preshared-key", path]
            elif key not in added:
                argv += ["preshared-key", "/dev/null"]
            if peer.endpoint:
                argv += ["endpoint", peer.endpoint]
            argv += ["persistent-keepalive", str(peer.persistent_keepalive)]
            argv += ["allowed-ips", ",".join(peer.allowed_ips)]
        run(argv, descriptors=descriptors)


def _set_routes(step: SetRoutes, name: str) -> None:
    def line(verb: str, route: Route) -> str:
        table = "" if route.table == "main" else f" table {route.table}"
        return f"route {verb} {route.network} dev {name}{table}"

    for flag, colon in (("-4", False), ("-6", True)):
        _batch([flag], [line("replace", route) for route in step.add if (":" in route.network) is colon])
        _batch([flag], [line("delete", route) for route in step.remove if (":" in route.network) is colon])
