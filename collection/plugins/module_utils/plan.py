# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is and what shall be to the steps between them. Pure: nothing here reads or changes a node.

Two functions. `target` says what the whole interface shall be, given what was asked for and what is there, and
refuses what would do harm. `plan` gives the steps from one state to another; it serves forward, as the check after
applying (no steps left), and backward, to undo.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict, FrozenSet, Iterable, List, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import render
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired, check_overlap
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import settle, unsettled
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import (
    default_routes,
    routes_for,
    wanted_routes,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    Hooks,
    InterfaceState,
    Link,
    Peer,
    Unit,
)
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

# So many peers go at the most when `max_removals` is not set, and never all of them to an empty list.
DEFAULT_MAX_REMOVALS = 10
LOWEST_IPV6_MTU = 1280  # bytes; the kernel takes IPv6 off an interface that has less


def target(
    desired: Desired,
    actual: InterfaceState,
    public_key_of: Callable[[str], str],
    new_private_key: Callable[[], str],
    free_port: Callable[[], int],
    default_mtu: Callable[[], int],
) -> InterfaceState:
    """What the whole interface shall be.

    What `desired` leaves open stays as it is on the node (of the kernel and the file, whichever tells), or is chosen by
    the functions when there is nothing yet. Raises Refused or InvalidInput when the result would do harm.
    """
    unit = actual.unit
    if desired.state != "present":
        return InterfaceState(unit=None if unit is None else Unit(enabled=False, active=False))

    device, config = actual.device, actual.config
    private_key = (
        desired.private_key
        or (device.private_key if device else None)
        or (config.private_key if config else None)
    )
    if private_key is None:
        if actual.file is not None and config is None:
            raise Refused(
                f"{desired.config_path} cannot be understood ({actual.broken}) and the interface is down, "
                "so its private key would be lost: set private_key, or repair or remove the file"
            )
        if desired.public_key is not None:
            raise InvalidInput(
                "private_key",
                f"is needed: {desired.name} has no key here, and one made now would not be that of public_key",
            )
        private_key = new_private_key()
    port = (
        desired.listen_port
        or (device.listen_port if device else None)
        or (config.listen_port if config else None)
        or free_port()
    )
    addresses = desired.addresses if desired.addresses is not None else addresses_there(actual)
    if desired.fwmark is not None:
        fwmark = desired.fwmark
    else:
        fwmark = device.fwmark if device else config.fwmark if config else 0
    # Without a file there is nobody to ask but the interface itself.
    mtu = desired.mtu or (config.mtu if config else actual.link.mtu if actual.link else None)
    if mtu and mtu < LOWEST_IPV6_MTU and any(":" in address for address in addresses):
        raise InvalidInput(
            "mtu", f"{mtu} is too low for the IPv6 addresses: they need {LOWEST_IPV6_MTU} or more"
        )
    table = desired.table or (config.table if config else table_in_use(actual))

    peers = _peers(desired, device.peers if device else None, config.peers if config else {})
    public_key = device.public_key if device and device.private_key == private_key else None
    public_key = public_key or public_key_of(private_key)
    if desired.public_key is not None and public_key not in ("", desired.public_key):
        raise InvalidInput("public_key", "is not the public key of private_key")
    if public_key in peers:
        raise InvalidInput(
            "peers", f"{public_key} is the interface's own public key; wg would skip it silently"
        )
    if table == "auto":
        everything = default_routes(peers)
        if everything:
            raise Refused(
                f"allowed_ips {everything[0]} with table auto would send the node's own traffic into the tunnel: "
                "set table to off or to a number"
            )

    wanted = Config(
        private_key=private_key,
        listen_port=port,
        addresses=addresses,
        peers=peers,
        mtu=mtu,
        fwmark=fwmark,
        table=table,
        hooks=desired.hooks(config.hooks if config else Hooks()),
        dns=config.dns if config else (),
    )
    return InterfaceState(
        device=Device(private_key, public_key, port, fwmark, peers),
        link=Link(True, mtu or (None if actual.link else default_mtu()), frozenset(addresses)),
        routes=routes_for(table, addresses, peers),
        file=render(wanted),
        config=wanted,
        unit=unit if unit is None or desired.enabled is None else Unit(enabled=desired.enabled, active=True),
    )


def addresses_there(actual: InterfaceState) -> Tuple[str, ...]:
    """The addresses of the file, and those that only the interface has: a line lost from the file takes no address,
    and an address lost from the interface comes back."""
    in_file = actual.config.addresses if actual.config else ()
    live = actual.link.addresses if actual.link else frozenset()
    # The kernel gives some interfaces a link-local address of its own accord.
    return (*in_file, *sorted(text for text in live if text not in in_file and not text.startswith("fe80:")))


def table_in_use(actual: InterfaceState) -> str:
    """What the table of an interface without a readable file must have been: "off" when its peers have networks that
    need routes, and none is there."""
    if actual.device is None or actual.link is None:
        return "auto"
    needed = wanted_routes("auto", actual.link.addresses, actual.device.peers.values())
    return "off" if needed and not needed & actual.routes else "auto"


def _peers(desired: Desired, live: Optional[Dict[str, Peer]], in_file: Dict[str, Peer]) -> Dict[str, Peer]:
    """The peers that shall be. `live` are those of the running interface, None when it is down."""

    def kept(key: str, peer: Peer) -> Peer:
        # A live peer's endpoint is where it was last seen; only the one in the file was asked for.
        return replace_endpoint(peer, in_file[key].endpoint if key in in_file else None)

    present = in_file if live is None else live
    if desired.peers is None:
        return {key: kept(key, peer) for key, peer in present.items()}
    if not desired.purge_peers:
        others = {key: kept(key, peer) for key, peer in present.items() if key not in desired.peers}
        peers = {**others, **desired.peers}
        if others:
            check_overlap(peers, "peers (together with those on the node, as purge_peers is false)")
        return peers
    known = present.keys() | in_file.keys()
    gone = known - desired.peers.keys()
    limit = desired.max_removals
    if limit is None:
        limit = DEFAULT_MAX_REMOVALS if desired.peers else 0
    if len(gone) > limit:
        raise Refused(
            f"{len(gone)} of {len(known)} peers would be removed from {desired.name}, {limit} are allowed: "
            f"if that is right, set max_removals to {len(gone)} or more"
        )
    return desired.peers


def replace_endpoint(peer: Peer, endpoint: Optional[str]) -> Peer:
    """`peer` with another endpoint; itself when it is the same."""
    return peer if peer.endpoint == endpoint else peer._replace(endpoint=endpoint)


def same_peer(wanted: Peer, actual: Peer) -> bool:
    """Whether a live peer is as wanted. Its endpoint does not count: a device may roam."""
    return wanted is actual or wanted[:4] == actual[:4]


def peer_changes(actual: InterfaceState, wanted: InterfaceState) -> SetPeers:
    """Which peers are to be added, updated and removed on the running interface."""
    live = actual.device.peers if actual.device else {}
    asked = wanted.device.peers if wanted.device else {}
    endpoints_then = actual.config.peers if actual.config else {}
    endpoints_now = wanted.config.peers if wanted.config else {}
    added, updated, removed, put = [], [], [], []
    to_look_at = unsettled(live, asked)
    keys = [*asked, *(key for key in live if key not in asked)] if to_look_at is None else sorted(to_look_at)
    open_keys: List[str] = []
    for key in keys:
        peer, there = asked.get(key), live.get(key)
        if peer is not None and there is not None and peer.endpoint is None and same_peer(peer, there):
            continue  # as nearly all are
        open_keys.append(key)
        if peer is None:
            if there is not None:
                removed.append(key)
            continue
        if there is None:
            added.append(key)
            put.append(peer)
            continue
        # An endpoint counts when another one is asked for than before. Where the device roams to does not count,
        # and setting the one asked for again would throw it back.
        # After a killed run the file may say already what wg was not told yet. A peer without any endpoint has not
        # roamed: it was put back by hand, or its name had no address at that time.
        then, now = endpoints_then.get(key), endpoints_now.get(key)
        last = there if actual.unfinished else then
        moved = (
            now is not None
            and now.endpoint is not None
            and (there.endpoint is None or (last is not None and last.endpoint != now.endpoint))
        )
        if moved or not same_peer(peer, there):
            updated.append(key)
            put.append(peer if moved else replace_endpoint(peer, None))
    if to_look_at is None:
        settle(live, asked, open_keys)
    before = {key: live[key] for key in (*updated, *removed)}
    return SetPeers(tuple(put), tuple(removed), tuple(added), tuple(updated), before)


def _table(state: InterfaceState) -> str:
    return state.config.table if state.config else "auto"


def route_changes(actual: InterfaceState, wanted: InterfaceState) -> SetRoutes:
    """Which routes through the interface are to be added, and which are there for peers' sake and no longer wanted.
    Routes that someone else set stay."""
    missing = tuple(sorted(wanted.routes - actual.routes))
    if actual.routes <= wanted.routes:
        return SetRoutes(missing)
    table = _table(actual)
    addresses = actual.link.addresses if actual.link else ()
    ours = set(wanted_routes(table, addresses, actual.config.peers.values() if actual.config else ()))
    if actual.device:
        ours |= wanted_routes(table, addresses, actual.device.peers.values())
    stale = (actual.routes & ours) - wanted.routes
    return SetRoutes(missing, tuple(sorted(stale)))


def plan(actual: InterfaceState, wanted: InterfaceState) -> List[Step]:
    """The steps from `actual` to `wanted`, in the order in which they are to be done.

    The order is chosen so that a run killed between any two steps leaves something that the next run completes:
    the file comes first (a full disk shows before anything is touched), routes go before the peers they lead to and
    come after them.
    """
    if wanted.device is None:
        return _down(actual, wanted)
    steps: List[Step] = []
    stale = route_changes(actual, wanted).remove
    if stale and _table(actual) != _table(wanted):
        # Only the old file tells which table these stand in, so they go while it is still there.
        steps.append(SetRoutes(remove=stale))
        actual = replace(actual, routes=actual.routes.difference(stale))
    steps.extend(_file(actual, wanted))
    if wanted.unit and actual.unit and wanted.unit.enabled != actual.unit.enabled:
        steps.append(EnableUnit(wanted.unit.enabled))

    if actual.device is None or actual.link is None:
        if wanted.unit and wanted.unit.active:
            if actual.unit and actual.unit.active:
                steps.append(StopUnit())  # the interface went away under an active unit
            steps.append(StartUnit())
            return steps
        hooks = wanted.config.hooks if wanted.config else Hooks()
        steps.extend(_hooks("pre_up", hooks))
        steps.append(CreateLink())
        steps.extend(_live(InterfaceState(device=Device(None, None, 0, 0, {})), wanted))
        steps.extend(_hooks("post_up", hooks))
        return steps

    steps.extend(_live(actual, wanted))
    if actual.unfinished == "creating" and wanted.config:
        steps.extend(_hooks("post_up", wanted.config.hooks))
    if wanted.unit and wanted.unit.active and actual.unit and not actual.unit.active:
        steps.append(AdoptUnit())
    return steps


def _file(actual: InterfaceState, wanted: InterfaceState) -> List[Step]:
    if wanted.file is None:
        return [] if actual.file is None else [RemoveFile(actual.file)]
    if actual.file == wanted.file and (actual.file_is_private or not wanted.file_is_private):
        return []
    return [WriteFile(wanted.file, actual.file)]


def _hooks(name: str, hooks: Hooks) -> List[Step]:
    commands: Tuple[str, ...] = getattr(hooks, name)
    return [RunHooks(name, commands)] if commands else []


def _live(actual: InterfaceState, wanted: InterfaceState) -> List[Step]:
    """The steps on an interface that exists."""
    steps: List[Step] = []
    now, then, link = actual.device, wanted.device, wanted.link
    if now is None or then is None or link is None:
        raise AssertionError("an interface that exists and shall exist has a device and a link")
    routes = route_changes(actual, wanted)
    if routes.remove:
        steps.append(SetRoutes(remove=routes.remove))
    change = SetDevice(
        None if now.private_key == then.private_key else then.private_key,
        None if now.listen_port == then.listen_port else then.listen_port,
        None if now.fwmark == then.fwmark else then.fwmark,
    )
    if change != SetDevice():
        steps.append(change)
    peers = peer_changes(actual, wanted)
    if peers.put or peers.remove:
        steps.append(peers)
    have: FrozenSet[str] = actual.link.addresses if actual.link else frozenset()
    add = tuple(sorted(link.addresses - have))
    # The kernel gives some interfaces a link-local address of its own accord.
    remove = tuple(sorted(text for text in have - link.addresses if not text.startswith("fe80:")))
    # Below 1280 bytes an interface bears no IPv6 address, so the MTU comes first.
    if link.mtu and (actual.link is None or actual.link.mtu != link.mtu):
        steps.append(SetMtu(link.mtu))
    if add or remove:
        steps.append(SetAddresses(add, remove))
    if actual.link is None or not actual.link.up:
        steps.append(LinkUp())
    add_routes = set(routes.add)
    if _ipv4(remove) and not _ipv4(link.addresses):
        # With its last IPv4 address, an interface loses its IPv4 routes.
        add_routes.update(route for route in wanted.routes if ":" not in route.network)
    if add_routes:
        steps.append(SetRoutes(add=tuple(sorted(add_routes))))
    return steps


def _ipv4(addresses: Iterable[str]) -> bool:
    return any(":" not in address for address in addresses)


def _down(actual: InterfaceState, wanted: InterfaceState) -> List[Step]:
    """The steps to no interface: first it may no longer start at boot, last goes the file, which wg-quick needs."""
    steps: List[Step] = []
    unit = actual.unit
    if unit and wanted.unit and unit.enabled != wanted.unit.enabled:
        steps.append(EnableUnit(wanted.unit.enabled))
    if unit and unit.active and not (wanted.unit and wanted.unit.active):
        steps.append(StopUnit())
    if actual.link is not None:
        by_unit = bool(unit and unit.active)
        hooks = actual.config.hooks if actual.config and not by_unit else Hooks()
        steps.extend(_hooks("pre_down", hooks))
        steps.append(DeleteLink())
        steps.extend(_hooks("post_down", hooks))
    steps.extend(_file(actual, wanted))
    return steps
