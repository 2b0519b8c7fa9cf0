"""What the demo shows, step by step.

alice and bob become customers, each on a node of their own, with dev1 and dev2. Then alice gets a second device, dev3;
bob moves to alice's node; someone meddles with that node and is found out; bob is disconnected, and alice removed.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.demo.customers import Customer, new_client, own_addresses
from tests.demo.fleet import Fleet
from tests.demo.playbook import Installed, Operator, Ran, shown
from tests.demo.report import Report, StepFailed
from tests.lab.device import Device
from tests.lab.fleet import Lab
from tests.lab.node import Node
from tests.lab.ping import PingResult, RunningPing

NODES, DEVICES = 2, 3

_COUNT = 5
_INTERVAL = 0.1  # seconds between the packets of a short ping
_BUSY_INTERVAL = 0.05  # seconds between those of a ping that goes on while something is changed
#: Reserved for documentation (RFC 5737): nobody is there.
_STRANGERS_NETWORK = "192.0.2.66/32"
_KINDS = ("missing", "mismatched", "unknown")


class Story:
    """One telling. `directory` takes the fleet's files and the logs; `progress` is told what a long step is at."""

    def __init__(
        self,
        lab: Lab,
        report: Report,
        directory: Path,
        progress: Callable[[str], None],
        database: str | None,
        installed: Installed | None,
    ) -> None:
        self._lab = lab
        self._report = report
        self._progress = progress
        self._fleet = Fleet(lab, directory, database)
        self._directory = directory
        self._installed = installed

    def tell(self) -> None:
        """All steps. One that the rest builds on is the last when it fails."""
        steps: list[tuple[str, Callable[[], str], bool]] = [
            ("Build the lab", self._build, True),
            ("nodes.yml: register the nodes", self._register, True),
            ("site.yml: prepare the servers", self._prepare, True),
            ("provision.yml: alice and bob", self._provision, True),
            ("provision.yml: the same again", self._provision_again, False),
            ("Connect their devices", self._connect, True),
            ("Ping through the tunnels", self._ping_instances, False),
            ("Ping the internet, masqueraded", self._ping_internet, False),
            ("provision.yml: alice's 2nd device", self._add_device, True),
            ("transfer.yml: bob to alice's node", self._transfer, True),
            ("Switch bob's endpoint", self._switch_endpoint, True),
            ("Keep alice and bob apart", self._keep_apart, False),
            ("Meddle with the node by hand", self._meddle, True),
            ("drift.yml: find it", self._find_drift, False),
            ("reconcile.yml: repair it", self._reconcile, True),
            ("drift.yml: look again", self._find_no_drift, False),
            ("disconnect.yml: bob", self._disconnect, False),
            ("remove.yml: alice", self._remove, True),
            ("Look for what is left of alice", self._look_for_rest, False),
        ]
        for name, action, needed in steps:
            if not self._report.step(name, action) and needed:
                return

    # -- the fleet

    def _build(self) -> str:
        self._lab.down()  # what a killed demo may have left
        self._lab.up()
        self._fleet.write()
        first, second, third = (new_client(device) for device in self._lab.devices)
        self._alice, self._bob = Customer("alice", [first]), Customer("bob", [second])
        self._second_device = third
        self._operator = Operator(
            self._fleet.inventory,
            self._fleet.environment(),
            self._directory,
            self._progress,
            self._installed,
        )
        return f"{NODES} nodes, {DEVICES} devices, in network namespaces of {self._lab.addresses.network}"

    def _register(self) -> str:
        if self._fleet.needs_schema:
            self._operator.run("registry")
        ran = self._operator.run("nodes", "-e", f"nodes_file={shlex.quote(str(self._fleet.nodes))}")
        known = self._fleet.nodes_known()
        detail = f"{', '.join(known)} in {self._fleet.registry}"
        self._expect(len(known) == NODES, detail, ran)
        return detail

    def _prepare(self) -> str:
        ran = self._operator.run("site", "--tags", "node")
        self._expect(all(ran.changed.get(node.name) for node in self._lab.nodes), _by_node(ran), ran)
        return f"forwarding, firewall: {_by_node(ran)}"

    def _provision(self) -> str:
        ran = self._serve(self._alice, self._bob)
        alice, bob = self._alice, self._bob
        detail = f"alice has {alice.interface} on {alice.node}, bob {bob.interface} on {bob.node}"
        self._expect(alice.node != bob.node, detail, ran)
        return detail

    def _provision_again(self) -> str:
        before = self._alice.served, self._bob.served
        ran = self._serve(self._alice, self._bob)
        unchanged = not any(ran.changed.values()) and not ran.result["changed"]
        self._expect(unchanged, _by_node(ran), ran)
        after = self._alice.served, self._bob.served
        self._expect(
            [_lasting(one) for one in before] == [_lasting(one) for one in after], "another answer", ran
        )
        return _by_node(ran)

    # -- the devices

    def _connect(self) -> str:
        customers = (self._alice, self._bob)
        for customer in customers:
            self._progress(f"{customer.first.device.name} to {customer.served['endpoint']}")
            customer.first.connect(customer.served)
        # A device shakes hands when it has something to send.
        _pings([(customer.first.device, customer.addresses[0]) for customer in customers], count=2)
        ages = {
            f"{one.name}'s {one.first.device.name}": one.first.device.handshake_age() for one in customers
        }
        said = [f"{name} {'never' if age is None else f'{age:.0f} s ago'}" for name, age in ages.items()]
        detail = f"handshakes: {', '.join(said)}"
        self._expect(None not in ages.values(), detail)
        return detail

    def _ping_instances(self) -> str:
        """To the node's own addresses in each tunnel."""
        targets = [
            (client.device, address)
            for customer in (self._alice, self._bob)
            for client in customer.clients
            for address in customer.addresses
        ]
        return f"IPv4 and IPv6: {self._all_answered(targets)}"

    def _ping_internet(self) -> str:
        """To an address outside that knows no way back to a tunnel's addresses, only to the nodes."""
        devices = [self._alice.first.device, self._bob.first.device]
        internet = [self._lab.addresses.gateway, self._lab.addresses.gateway6]
        for device in devices:
            for target in internet:
                route = json.loads(device.run(["ip", "-json", "route", "get", target]).stdout)[0]["dev"]
                self._expect(route == "wg0", f"{device.name} reaches {target} by {route}, not by its tunnel")
        answered = self._all_answered([(device, target) for device in devices for target in internet])
        return f"IPv4 and IPv6: {answered}"

    # -- operations on a fleet in use

    def _add_device(self) -> str:
        """alice's first device keeps its session, and the second one reaches it."""
        alice, first, second = self._alice, self._alice.first, self._second_device
        alice.clients.append(second)
        ran, (ping,) = self._while_pinging([(first.device, alice.addresses[0])], lambda: self._serve(alice))
        detail = f"{first.device.name} lost {_losses(ping)}"
        self._expect(ping.lost == 0, detail, ran)
        second.connect(alice.served)
        targets = [(second.device, address) for address in own_addresses(first, alice.served)]
        return f"{detail}; to it, {self._all_answered(targets)}"

    def _transfer(self) -> str:
        """alice notices nothing; what bob had on his node is gone there, and on the other one with the same keys."""
        alice, bob = self._alice, self._bob
        source, target = self._node(bob.node), self._node(alice.node)
        before = self._shown(source, bob.interface)
        ran, (ping,) = self._while_pinging(
            [(alice.first.device, alice.addresses[0])],
            lambda: self._operator.run(
                "transfer", "-e", f"instance={bob.email}", "-e", f"node={target.name}"
            ),
        )
        bob.served.update(_only(ran))
        after = self._shown(target, bob.interface)
        self._expect(before == after, f"{before} became {after}", ran)
        left = self._left(source)
        detail = f"{', '.join(left) or 'nothing'} left on {source.name}; {alice.first.device.name} lost {_losses(ping)}"
        self._expect(not left and ping.lost == 0, detail, ran)
        return detail

    def _switch_endpoint(self) -> str:
        """All that a transfer wants of a customer: keys and addresses stay."""
        bob, device = self._bob, self._bob.first.device
        began = time.monotonic()
        bob.first.switch_endpoint(bob.served["endpoint"])
        ping = device.start_ping(bob.addresses[0], _BUSY_INTERVAL)
        answered = ping.wait_for_reply()
        gap = time.monotonic() - began
        ping.stop()
        self._expect(answered, f"{device.name} gets no answer from {bob.served['endpoint']}")
        return (
            f"{device.name} to {bob.served['endpoint']}, answers after {gap:.1f} s; same keys and addresses"
        )

    def _keep_apart(self) -> str:
        """bob, on the node where alice is, sends into his tunnel what is for her devices."""
        device = self._bob.first.device
        targets = [
            address for client in self._alice.clients for address in own_addresses(client, self._alice.served)
        ]
        results = _pings([(device, target) for target in targets], timeout=1)
        received = sum(result.received for result in results)
        sent = sum(result.sent for result in results)
        detail = f"{device.name} to alice's devices, on the same node: {received}/{sent} answered"
        self._expect(received == 0, detail)
        return detail

    def _meddle(self) -> str:
        """Someone with a shell on the node takes alice's second device out, and lets another one in."""
        alice, stranger = self._alice, new_client(self._second_device.device)
        peer = ["wg", "set", alice.interface, "peer"]
        node, device = self._node(alice.node), self._second_device.device
        node.run([*peer, self._second_device.public_key, "remove"])
        node.run([*peer, stranger.public_key, "allowed-ips", _STRANGERS_NETWORK])
        self._stranger = stranger.public_key
        cut_off = device.ping(alice.addresses[0], 2, _INTERVAL, timeout=1)
        answered = f"{cut_off.received}/{cut_off.sent} answered"
        detail = f"{alice.interface} on {node.name}: {device.name} taken out, {answered}; a stranger let in"
        self._expect(cut_off.received == 0, detail)
        return detail

    def _find_drift(self) -> str:
        """On all nodes: exactly what was done, and what it makes of the file, which now says something else."""
        ran, drift, detail = self._look_for_drift()
        found = {
            (node, peer["interface"], kind, peer["public_key"])
            for node, data in drift.items()
            for kind in _KINDS
            for peer in data[f"{kind}_peers"]
        }
        found |= {
            (node, issue["interface"], "interface", issue["field"])
            for node, data in drift.items()
            for issue in data["interface_issues"]
        }
        here = (self._alice.node, self._alice.interface)
        done = {
            (*here, "missing", self._second_device.public_key),
            (*here, "unknown", self._stranger),
            (*here, "interface", "file"),
        }
        self._expect(found == done, f"{detail}\nfound {sorted(found)}", ran)
        return detail

    def _reconcile(self) -> str:
        ran = self._operator.run("reconcile", "-e", f"node={self._alice.node}", "-e", "remove_unknown=true")
        done = _only(ran)["data"]
        detail = ", ".join(f"{len(done[key])} {key}" for key in ("added", "updated", "removed", "errors"))
        right = done["added"] == [self._second_device.public_key] and done["removed"] == [self._stranger]
        self._expect(right and not done["updated"] and not done["errors"], detail, ran)
        return f"{self._alice.node}: {detail}"

    def _find_no_drift(self) -> str:
        """Nor does the device need a hand: it shakes hands anew when it has had no answer for 15 seconds."""
        ran, drift, detail = self._look_for_drift()
        self._expect(not any(data["has_drift"] for data in drift.values()), detail, ran)
        device = self._second_device.device
        self._progress(f"{detail}; {device.name} shakes hands anew after 15 s without an answer")
        ping = device.start_ping(self._alice.addresses[0], _BUSY_INTERVAL)
        answers = ping.wait_for_reply(timeout=25)
        ping.stop()
        self._expect(answers, f"{detail}; {device.name} is not back")
        return f"{detail}; {device.name} is back by itself"

    def _disconnect(self) -> str:
        """bob's tunnel dies, alice's do not notice."""
        alice, bob = self._alice, self._bob
        pinging = [(client.device, alice.addresses[0]) for client in alice.clients]
        pinging.append((bob.first.device, bob.addresses[0]))
        ran, (*others, died) = self._while_pinging(
            pinging, lambda: self._operator.run("disconnect", "-e", f"instance={bob.email}")
        )
        device = bob.first.device
        after = device.ping(bob.addresses[0], _COUNT, _INTERVAL, timeout=1)
        names = " and ".join(client.device.name for client in alice.clients)
        gone = f"{device.name} {died.received} answers, then {after.received}/{after.sent}"
        detail = f"{gone}; {names} lost {_losses(*others)}"
        lost = sum(result.lost for result in others)
        self._expect(died.received > 0 and after.received == 0 and lost == 0, detail, ran)
        left = self._left(self._node(bob.node))
        self._expect(left == _files(alice.interface), f"on {bob.node} there is {left}", ran)
        return detail

    def _remove(self) -> str:
        alice = self._alice
        self._alices_tables = self._fleet.tables_with(*self._marks_of(alice))
        ran = self._operator.run("remove", "-e", f"instance={alice.email}")
        report = _only(ran)["results"]
        items = [
            f"{item['type']} ({item['peers_removed']} peers)"
            if "peers_removed" in item
            else str(item["type"])
            for item in report["removed_items"]
        ]
        detail = ", ".join(items)
        self._expect(not report["errors"], f"{detail}\nerrors: {report['errors']}", ran)
        return detail

    def _look_for_rest(self) -> str:
        """Not what the fleet says of it: what is on the nodes and in the registry, and whether her tunnel answers."""
        left = {node.name: self._left(node) for node in self._lab.nodes}
        self._expect(not any(left.values()), f"on the nodes there is {left}")
        tables = self._fleet.tables_with(*self._marks_of(self._alice))
        self._expect(not tables, f"alice is still in {', '.join(tables)}")
        self._expect(len(self._alices_tables) > 0, "alice never was in the registry")
        self._expect("instance" in self._fleet.tables_with(self._bob.email), "bob is gone as well")
        device = self._alice.first.device
        after = device.ping(self._alice.addresses[0], _COUNT, _INTERVAL, timeout=1)
        self._expect(after.received == 0, f"{device.name} {after.received}/{after.sent} answered")
        return (
            f"no interface or file on a node, gone from {len(self._alices_tables)} tables; "
            f"{device.name} {after.received}/{after.sent} answered"
        )

    # -- how

    def _serve(self, *customers: Customer) -> Ran:
        """Provision customers, as they are now, by one run."""
        variables = {"instances": [customer.request() for customer in customers]}
        names = "-and-".join(customer.name for customer in customers)
        ran = self._operator.run("provision", "-e", self._fleet.write_request(names, variables))
        for customer, served in zip(customers, ran.result["operations"], strict=True):
            customer.served = served
        return ran

    def _look_for_drift(self) -> tuple[Ran, dict[str, Any], str]:
        """Look at all nodes; what was found by node, and in a few words."""
        ran = self._operator.run("drift")
        drift = {one["node"]: one["data"] for one in ran.result["operations"]}
        detail = "; ".join(f"{node}: {_counted(data)}" for node, data in sorted(drift.items()))
        self._expect(len(drift) == NODES, detail, ran)
        return ran, drift, detail

    def _shown(self, node: Node, interface: str) -> dict[str, Any]:
        """The keys and networks that an interface of a node has, whatever its port."""
        own, *peers = node.run(["wg", "show", interface, "dump"]).stdout.splitlines()
        addresses = json.loads(node.run(["ip", "-json", "address", "show", "dev", interface]).stdout)[0]
        return {
            "public_key": own.split("\t")[1],
            "addresses": sorted(one["local"] for one in addresses["addr_info"] if one["scope"] == "global"),
            "peers": sorted(
                (key, networks) for key, _psk, _at, networks, *_ in (p.split("\t") for p in peers)
            ),
        }

    def _left(self, node: Node) -> list[str]:
        """The interfaces of instances on a node, and their files."""
        links = node.run(["ls", "/sys/class/net", "/etc/wireguard"]).stdout.split()
        return sorted(name for name in links if name.startswith("wg"))

    def _marks_of(self, customer: Customer) -> list[str]:
        """What a row of the registry that is about a customer holds."""
        return [customer.email, *(client.public_key for client in customer.clients)]

    def _node(self, name: str) -> Node:
        return next(node for node in self._lab.nodes if node.name == name)

    def _while_pinging(
        self, targets: Sequence[tuple[Device, str]], action: Callable[[], Ran]
    ) -> tuple[Ran, list[PingResult]]:
        """Do something while devices ping; how that went for each of them."""
        pings: list[RunningPing] = []
        try:
            pings += [device.start_ping(target, _BUSY_INTERVAL) for device, target in targets]
            answered = [ping.wait_for_reply() for ping in pings]
            self._expect(all(answered), "not every device gets answers before anything is changed")
            ran = action()
        finally:
            results = [ping.stop() for ping in pings]
        return ran, results

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

    def _expect(self, right: bool, detail: str, ran: Ran | None = None) -> None:
        if not right:
            raise StepFailed(detail if ran is None else f"{detail}\nsee {shown(ran.log)}")


def _pings(
    targets: Sequence[tuple[Device, str]], count: int = _COUNT, timeout: float = 2
) -> list[PingResult]:
    """Ping from devices side by side."""
    with ThreadPoolExecutor(len(targets)) as pool:
        running = [pool.submit(device.ping, target, count, _INTERVAL, timeout) for device, target in targets]
        return [ping.result() for ping in running]


def _by_node(ran: Ran) -> str:
    return ", ".join(f"{node} changed={number}" for node, number in sorted(ran.changed.items()))


def _losses(*results: PingResult) -> str:
    return f"{sum(result.lost for result in results)} of {sum(result.sent for result in results)} packets"


def _only(ran: Ran) -> dict[str, Any]:
    (operation,) = ran.result["operations"]
    return dict(operation)


def _files(*interfaces: str) -> list[str]:
    """What there is of instances on a node: interfaces, and their files."""
    return sorted(name for interface in interfaces for name in (interface, f"{interface}.conf"))


def _counted(drift: Mapping[str, Any]) -> str:
    """A node's drift in a few words."""
    said = [f"{len(drift[f'{kind}_peers'])} {kind}" for kind in _KINDS if drift[f"{kind}_peers"]]
    said += [f"{issue['field']} differs" for issue in drift["interface_issues"]]
    return ", ".join(said) or "no drift"


def _lasting(served: Mapping[str, Any]) -> dict[str, Any]:
    return {key: served[key] for key in ("interface", "node", "endpoint", "public_key", "addresses")}
