"""What the demo shows, step by step.

node1 runs wg1 (dev1) and wg2 (dev2), node2 runs wg3 (dev3). Later dev3 joins wg1 too, and wg2 is disconnected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.demo.customers import Instance, Peer, connect, connect_second, new_key, write_inventory
from tests.demo.playbook import run_site, shown
from tests.demo.report import Report, StepFailed
from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.ping import PingResult

NODES, DEVICES = 2, 3

_COUNT = 5
_INTERVAL = 0.1  # seconds between the packets of a short ping
_BUSY_INTERVAL = 0.05  # seconds between those of a ping that goes on while something is changed


class Story:
    """One telling. `directory` takes the inventory and the logs; `progress` is told what a long step is at."""

    def __init__(self, lab: Lab, report: Report, directory: Path, progress: Callable[[str], None]) -> None:
        self._lab = lab
        self._report = report
        self._directory = directory
        self._progress = progress
        self._instances: list[Instance] = []
        self._peers: list[Peer] = []

    def tell(self) -> None:
        """All steps. Without the first three there is nothing to show; the others stand for themselves."""
        step = self._report.step
        if not step("Build the lab", self._build):
            return
        self._devices = self._lab.devices
        if not step("Run site.yml over SSH", self._converge):
            return
        step("Run it again", self._converge_again)
        if not step("Connect the devices", self._connect):
            return
        step("Ping through the tunnels, IPv4", lambda: self._ping_instances(0))
        step("Ping through the tunnels, IPv6", lambda: self._ping_instances(1))
        step("Ping the internet, masqueraded", self._ping_internet)
        step("Keep instances apart", self._isolation)
        if step("Add a peer while dev1 pings", self._add_peer):
            step("Use the new peer", self._use_new_peer)
        step("Disconnect wg2 while all ping", self._disconnect)

    def _build(self) -> str:
        self._lab.down()  # what a killed demo may have left
        self._lab.up()
        first, second = self._lab.nodes
        for number, node in enumerate([first, first, second], start=1):
            instance = Instance(number, node, new_key())
            self._instances.append(instance)
            self._peers.append(instance.add_peer())
        return f"{NODES} nodes, {DEVICES} devices, in network namespaces of {self._lab.addresses.network}"

    def _converge(self) -> str:
        changed = self._site("site.log")
        self._expect(all(changed[node.name] > 0 for node in self._lab.nodes), _by_node(changed), "site.log")
        return f"{len(self._instances)} instances on {len(changed)} nodes: {_by_node(changed)}"

    def _converge_again(self) -> str:
        changed = self._site("second-run.log")
        self._expect(not any(changed.values()), _by_node(changed), "second-run.log")
        return _by_node(changed)

    def _connect(self) -> str:
        for device, instance, peer in zip(self._devices, self._instances, self._peers, strict=True):
            self._progress(f"{device.name} to {instance.name} on {instance.node.name}")
            connect(self._lab, device, instance, peer)
        # A device shakes hands when it has something to send.
        _pings([(d, i.addresses[0]) for d, i in zip(self._devices, self._instances, strict=True)], count=2)
        ages = [device.handshake_age() for device in self._devices]
        said = [
            f"{device.name} {'never' if age is None else f'{age:.0f} s ago'}"
            for device, age in zip(self._devices, ages, strict=True)
        ]
        detail = f"handshakes: {', '.join(said)}"
        self._expect(None not in ages, detail)
        return detail

    def _ping_instances(self, version: int) -> str:
        """To the node's own address in each tunnel; `version` is its place in a pair of addresses."""
        pairs = zip(self._devices, self._instances, strict=True)
        return self._all_answered([(device, instance.addresses[version]) for device, instance in pairs])

    def _ping_internet(self) -> str:
        """To an address outside that knows no way back to a tunnel's addresses, only to the nodes."""
        targets = [self._lab.addresses.gateway, self._lab.addresses.gateway6]
        for target in targets:
            route = json.loads(self._devices[0].run(["ip", "-json", "route", "get", target]).stdout)
            self._expect(
                route[0]["dev"] == "wg0", f"dev1 reaches {target} by {route[0]['dev']}, not by its tunnel"
            )
        return self._all_answered([(device, target) for device in self._devices for target in targets])

    def _isolation(self) -> str:
        """dev2 sends into its tunnel what is for dev1's address in another instance of the same node."""
        results = _pings([(self._devices[1], target) for target in self._peers[0].addresses], timeout=1)
        detail = f"dev2 in wg2 to dev1 in wg1: {sum(result.received for result in results)} answers"
        self._expect(not any(result.received for result in results), detail)
        return detail

    def _add_peer(self) -> str:
        instance = self._instances[0]
        ping = self._devices[0].start_ping(instance.addresses[0], _BUSY_INTERVAL)
        try:
            self._expect(ping.wait_for_reply(), "dev1 gets no answer before anything is changed")
            self._peers.append(instance.add_peer())
            changed = self._site("add-peer.log")
        finally:
            result = ping.stop()
        detail = f"{_losses('dev1', result)}; {_by_node(changed)}"
        self._expect(result.lost == 0 and changed == {"node1": 1, "node2": 0}, detail, "add-peer.log")
        return detail

    def _use_new_peer(self) -> str:
        """dev3 joins wg1 with the new peer's key and reaches dev1, which is in the same instance."""
        device = self._devices[2]
        connect_second(device, self._instances[0], self._peers[3])
        return "dev3 to dev1 within wg1: " + self._all_answered(
            [(device, target) for target in self._peers[0].addresses]
        )

    def _disconnect(self) -> str:
        instance = self._instances[1]
        pings = [
            device.start_ping(other.addresses[0], _BUSY_INTERVAL)
            for device, other in zip(self._devices, self._instances, strict=True)
        ]
        results: list[PingResult] = []
        try:
            answered = all(ping.wait_for_reply() for ping in pings)
            self._expect(answered, "not every device gets answers before anything is changed")
            instance.state = "disconnected"
            self._site("disconnect.log")
            after = self._devices[1].ping(instance.addresses[0], _COUNT, _INTERVAL, timeout=1)
        finally:
            results = [ping.stop() for ping in pings]
        left = instance.node.run(["ls", "/sys/class/net", "/etc/wireguard"]).stdout.split()
        gone = not {instance.name, f"{instance.name}.conf"} & set(left)
        first, second, third = results
        lost, sent = first.lost + third.lost, first.sent + third.sent
        detail = (
            f"wg2 {'gone' if gone else 'is still there'}; dev2 {second.received} answers, then "
            f"{after.received}/{after.sent}; dev1 and dev3 lost {lost} of {sent} packets"
        )
        right = gone and second.received > 0 and after.received == 0 and lost == 0
        self._expect(right, detail, "disconnect.log")
        return detail

    # -- how

    def _site(self, log: str) -> dict[str, int]:
        inventory = write_inventory(self._directory / "inventory", self._lab, self._instances)
        return run_site(self._lab, inventory, self._directory / log, self._progress)

    def _all_answered(self, targets: Sequence[tuple[Device, str]]) -> str:
        results = _pings(targets)
        sums: dict[str, list[int]] = {}
        for (device, _), result in zip(targets, results, strict=True):
            answered, sent = sums.setdefault(device.name, [0, 0])
            sums[device.name] = [answered + result.received, sent + result.sent]
        detail = (
            ", ".join(f"{name} {answered}/{sent}" for name, (answered, sent) in sums.items()) + " answered"
        )
        self._expect(all(answered == sent for answered, sent in sums.values()), detail)
        return detail

    def _expect(self, right: bool, detail: str, log: str | None = None) -> None:
        if not right:
            raise StepFailed(detail if log is None else f"{detail}\nsee {shown(self._directory / log)}")


def _pings(
    targets: Sequence[tuple[Device, str]], count: int = _COUNT, timeout: float = 2
) -> list[PingResult]:
    """Ping from devices side by side."""
    with ThreadPoolExecutor(len(targets)) as pool:
        running = [pool.submit(device.ping, target, count, _INTERVAL, timeout) for device, target in targets]
        return [ping.result() for ping in running]


def _by_node(changed: dict[str, int]) -> str:
    return ", ".join(f"{node} changed={number}" for node, number in sorted(changed.items()))


def _losses(device: str, result: PingResult) -> str:
    return f"{device} lost {result.lost} of {result.sent} packets"
