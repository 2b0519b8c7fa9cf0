"""A node with one interface, in memory: it does what the steps of a plan would make a real one do.

It follows Linux in what matters to a plan: an AllowedIP moves away from the peer that had it, an interface's own key
is no peer, routes go with the interface and with its last IPv4 address and cannot be set while it is down, an address
cannot be removed twice, wg-quick does not start what is up already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import steps as steps_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import BrokenFile, parse
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Config,
    Device,
    InterfaceState,
    Link,
    Peer,
    Unit,
)
from tests.unit.plugins.module_utils.generated import public_key_of

DEFAULT_MTU = 1420


class Impossible(WireGuardError):
    """A real node would have failed at this step."""


def understood(text: str | None) -> Config | None:
    """The meaning of a file, None for none and for a broken one."""
    try:
        return None if text is None else parse(text)
    except BrokenFile:
        return None


class SimulatedNode:
    """Holds the state; `hooks` lists the commands that were run."""

    def __init__(self, state: InterfaceState) -> None:
        self.now = state
        self.hooks: list[tuple[str, tuple[str, ...]]] = []

    def state(self) -> InterfaceState:
        """What a reading would find."""
        return replace(self.now, config=understood(self.now.file))

    def apply(self, step: steps_of.Step) -> None:
        """Carry out one step. Raises Impossible where a real node would fail."""
        for _part in self.parts(step):
            pass

    def parts(self, step: steps_of.Step) -> Iterator[None]:
        """Carry out one step bit by bit, as far as the caller goes on: a kill may come at each yield."""
        if isinstance(step, steps_of.WriteFile):
            self._set(file=step.text, file_is_private=True)
        elif isinstance(step, steps_of.RemoveFile):
            self._set(file=None, file_is_private=True)
        elif isinstance(step, steps_of.RunHooks):
            self.hooks.append((step.name, step.commands))
        elif isinstance(step, steps_of.StartUnit):
            self._start()
        elif isinstance(step, steps_of.StopUnit):
            self._set(unit=replace(self._unit(), active=False))
            if self.now.link and understood(self.now.file):
                self._gone()
        elif isinstance(step, steps_of.AdoptUnit):
            if self.now.link is None:
                raise Impossible("nothing to adopt")
            self._set(unit=replace(self._unit(), active=True))
        elif isinstance(step, steps_of.EnableUnit):
            self._set(unit=replace(self._unit(), enabled=step.enabled))
        elif isinstance(step, steps_of.CreateLink):
            if self.now.link is not None:
                raise Impossible("the interface exists")
            self._set(device=Device(None, None, 0, 0, {}), link=Link(False, DEFAULT_MTU, frozenset()))
        elif isinstance(step, steps_of.DeleteLink):
            self._gone()
        elif isinstance(step, steps_of.SetDevice):
            self._set_device(step)
        elif isinstance(step, steps_of.SetPeers):
            yield from self._set_peers(step)
        elif isinstance(step, steps_of.SetAddresses):
            yield from self._set_addresses(step)
        elif isinstance(step, steps_of.SetMtu):
            self._set(link=replace(self._link(), mtu=step.mtu))
        elif isinstance(step, steps_of.LinkUp):
            self._set(link=replace(self._link(), up=True))
        elif isinstance(step, steps_of.SetRoutes):
            yield from self._set_routes(step)
        else:
            raise AssertionError(f"unknown step {step!r}")
        yield

    def _set(self, **values: object) -> None:
        self.now = replace(self.now, **values)  # type: ignore[arg-type]

    def _link(self) -> Link:
        if self.now.link is None:
            raise Impossible("no such interface")
        return self.now.link

    def _device(self) -> Device:
        if self.now.device is None:
            raise Impossible("no such interface")
        return self.now.device

    def _unit(self) -> Unit:
        if self.now.unit is None:
            raise Impossible("no systemd")
        return self.now.unit

    def _gone(self) -> None:
        self._set(device=None, link=None, routes=frozenset())

    def _start(self) -> None:
        unit, config = self._unit(), understood(self.now.file)
        if unit.active:
            return  # systemd does nothing
        if self.now.link is not None or config is None:
            raise Impossible("wg-quick up fails")
        own = public_key_of(config.private_key) if config.private_key else None
        peers = {name: peer for name, peer in config.peers.items() if name != own}
        self._set(
            device=Device(config.private_key, own, config.listen_port or 40000, config.fwmark, peers),
            link=Link(True, config.mtu or DEFAULT_MTU, frozenset(config.addresses)),
            routes=wanted_routes(config.table, config.addresses, config.peers.values()),
            unit=replace(unit, active=True),
        )

    def _set_device(self, step: steps_of.SetDevice) -> None:
        device = self._device()
        if step.private_key is not None:
            own = public_key_of(step.private_key)
            peers = {name: peer for name, peer in device.peers.items() if name != own}
            device = replace(device, private_key=step.private_key, public_key=own, peers=peers)
        if step.listen_port is not None:
            device = replace(device, listen_port=step.listen_port)
        if step.fwmark is not None:
            device = replace(device, fwmark=step.fwmark)
        self._set(device=device)

    def _set_peers(self, step: steps_of.SetPeers) -> Iterator[None]:
        for name in step.remove:
            device = self._device()
            self._set(device=replace(device, peers={k: v for k, v in device.peers.items() if k != name}))
            yield
        for peer in step.put:
            device = self._device()
            if peer.public_key == device.public_key:
                continue
            there = device.peers.get(peer.public_key)
            endpoint = peer.endpoint or (there.endpoint if there else None)
            peers: dict[str, Peer] = {
                name: other._replace(
                    allowed_ips=tuple(net for net in other.allowed_ips if net not in peer.allowed_ips)
                )
                for name, other in device.peers.items()
            }
            peers[peer.public_key] = peer._replace(endpoint=endpoint)
            self._set(device=replace(device, peers=peers))
            yield

    def _set_addresses(self, step: steps_of.SetAddresses) -> Iterator[None]:
        for address in step.add:
            if address in self._link().addresses:
                raise Impossible(f"{address} is there already")
            self._set(link=replace(self._link(), addresses=self._link().addresses | {address}))
            yield
        for address in step.remove:
            if address not in self._link().addresses:
                raise Impossible(f"{address} is not there")
            left = self._link().addresses - {address}
            self._set(link=replace(self._link(), addresses=left))
            if ":" not in address and not any(":" not in text for text in left):
                self._set(routes=frozenset(route for route in self.now.routes if ":" in route.network))
            yield

    def _set_routes(self, step: steps_of.SetRoutes) -> Iterator[None]:
        for route in step.add:
            if not self._link().up:
                raise Impossible("the interface is down")
            self._set(routes=self.now.routes | {route})
            yield
        for route in step.remove:
            if route not in self.now.routes:
                raise Impossible(f"{route} is not there")
            self._set(routes=self.now.routes - {route})
            yield
