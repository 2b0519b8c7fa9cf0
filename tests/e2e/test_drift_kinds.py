"""Every kind of drift, made by hand on a node at once: each is found and named, stays while no switch allows its
repair, is repaired, and is gone on the second look; and a customer who is connected all the time notices nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import models
from tests.e2e.broken_tools import WORK_AS_EVER, order, stand_ins
from tests.e2e.drifting_fleet import EVERYTHING, anna_keeps_pinging
from tests.e2e.node_state import read_state
from tests.e2e.registry_fleet import RegistryFleet, registered
from tests.e2e.wireguard_keys import peer_key, preshared_key, public_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

NODE, OTHER = "node1", "node2"
NOTHING = dict.fromkeys(EVERYTHING, False)
SITE = "10.100.{}.0/24"  # a network behind a peer, which needs a route
MTU = 1400
STRANGER = peer_key("a stranger")
CONF = '"/etc/wireguard/$1.conf"'


@dataclass(frozen=True)
class Kind:
    """A kind of drift: what is done by hand to the instance $1. Its first peer is $2 and has the networks $3; its
    second is $4 and has the networks $5, of which $6 needs a route.

    And what is to be named: the number of missing and of unknown peers, the fields in which the first differs, and by
    field of the interface, words of what is found there.
    """

    by_hand: str
    issues: dict[str, str] | None = None
    missing: int = 0
    unknown: int = 0
    mismatch: str | None = None


def peer_differs(by_hand: str, field: str) -> Kind:
    return Kind(f'wg set "$1" peer "$2" {by_hand}', {"file": "1 peer different"}, mismatch=field)


def file_only(by_hand: str, difference: str) -> Kind:
    return Kind(by_hand, {"file": difference})


#: `key` is a file that holds a preshared key which nobody has.
KINDS = {
    # peers
    "unknown peer": Kind(
        f'wg set "$1" peer {STRANGER} allowed-ips 10.99.0.7/32', {"file": "1 peer only running"}, unknown=1
    ),
    "missing peer": Kind('wg set "$1" peer "$2" remove', {"file": "1 peer only in the file"}, missing=1),
    "other networks": peer_differs("allowed-ips 10.99.0.8/32", "allowed_ips"),
    "no networks": peer_differs('allowed-ips ""', "allowed_ips"),
    "a mapped network more": peer_differs('allowed-ips "$3,::ffff:10.9.8.7/128"', "allowed_ips"),
    "another keepalive": peer_differs("persistent-keepalive 31", "persistent_keepalive"),
    "no preshared key": peer_differs("preshared-key /dev/null", "preshared_key"),
    "another preshared key": peer_differs("preshared-key /run/key", "preshared_key"),
    # the interface
    "no interface": Kind('ip link delete "$1"', {"interface": "missing"}, missing=2),
    "neither interface nor file": Kind(
        f'ip link delete "$1"; rm {CONF}', {"interface": "missing", "file": "missing"}, missing=2
    ),
    "interface down": Kind(
        'ip link set "$1" down', {"interface": "down", "addresses": "10.", "file": "other addresses"}
    ),
    "another private key": Kind(
        'wg set "$1" private-key /run/key', {"public_key": "", "file": "another private key"}
    ),
    "another listen port": Kind('wg set "$1" listen-port 9', {"listen_port": "9", "file": "listen port"}),
    "a firewall mark": Kind('wg set "$1" fwmark 9', {"file": "fwmark 0"}),
    "an address too many": Kind(
        'ip address add 10.99.9.9/32 dev "$1"', {"addresses": "10.99.9.9/32", "file": "other addresses"}
    ),
    "an address lost": Kind(
        'ip -6 address flush dev "$1" scope global', {"addresses": "10.", "file": "other addresses"}
    ),
    "another MTU": Kind('ip link set "$1" mtu 1300', {"mtu": "1300", "file": f"MTU {MTU}"}),
    "a route lost": Kind('ip route del "$6" dev "$1"', {"routes": "1 missing"}),
    # the file
    "no file": file_only(f"rm {CONF}", "missing"),
    "an empty file": file_only(f": >{CONF}", "broken: line 1: "),
    "a broken file": file_only(f"echo nonsense >>{CONF}", "broken: line "),
    "a file cut short": file_only(f"sed -i '/^PublicKey/q' {CONF}; sed -i '$ s/.$//' {CONF}", "broken: line "),
    "a file without a peer": file_only(
        f"sed -i '0,/^.Peer./b; /^.Peer./,$d' {CONF}", "1 peer only running"
    ),
    "a file with a peer more": file_only(
        f"printf '\n[Peer]\nPublicKey = {STRANGER}\n' >>{CONF}", "1 peer only in the file"
    ),
    "a file with other networks": file_only(
        f"sed -i 's|^AllowedIPs = 10.100.*|AllowedIPs = 10.99.0.9/32|' {CONF}", "1 peer different"
    ),
    "a file without a preshared key": file_only(f"sed -i '/^PresharedKey/d' {CONF}", "1 peer different"),
    "a file with another private key": file_only(
        f'sed -i "s|^PrivateKey = .*|PrivateKey = $(cat /run/key)|" {CONF}', "another private key"
    ),
    "a file with another port": file_only(f"sed -i 's/^ListenPort.*/ListenPort = 99/' {CONF}", "listen port 99"),
    "a file with another MTU": file_only(f"sed -i 's/^MTU.*/MTU = 1299/' {CONF}", "MTU 1299"),
    "a file with another address": file_only(
        f"sed -i 's|^Address = 10.*|Address = 10.99.7.1/24|' {CONF}", "other addresses"
    ),
    "a file readable by others": Kind(f"chmod 644 {CONF}", {"file mode": "readable by others"}),
    "a link for a file": Kind(
        f'mv {CONF} "/run/$1.kept"; ln -s "/run/$1.kept" {CONF}', {"file mode": "readable by others"}
    ),
    "file and interface agree and are wrong": Kind(
        f"sed -i 's/^ListenPort.*/ListenPort = 97/' {CONF}; wg set \"$1\" listen-port 97", {"listen_port": "97"}
    ),
    # what is written otherwise and means the same, and what is nobody's business
    "other spellings": Kind(
        'wg set "$1" peer "$2" allowed-ips "$(echo "$3" | tr , "\n" | sort -r | tr "a-f\n" "A-F,")$3"; '
        f"sed -i 's/ = /   =  /; s/^Address/address/' {CONF}; echo '# seen by the night shift' >>{CONF}"
    ),
    "host bits": Kind('wg set "$1" peer "$4" allowed-ips "$(echo "$5" | sed "s|[.]0/24|.77/24|")"'),
    "somebody else's route": Kind('ip route add 198.51.100.0/24 dev "$1"'),
}  # fmt: skip


@dataclass(frozen=True)
class Customers:
    """The fleet and what was told of its instances, by kind."""

    fleet: RegistryFleet
    told: dict[str, dict[str, Any]]

    @property
    def node(self) -> Node:
        return self.fleet.nodes[NODE]

    def interface(self, kind: str) -> str:
        return str(self.told[kind]["interface"])

    def by_hand(self, kind: str, text: str) -> None:
        first, second = self.told[kind]["peers"]
        self.node.run(
            [
                *("sh", "-euc", text, "sh", self.interface(kind)),
                *(first["public_key"], ",".join(first["allowed_ips"])),
                *(second["public_key"], ",".join(second["allowed_ips"]), second["allowed_ips"][-1]),
            ]
        )

    def look(self) -> dict[str, Any]:
        (only,) = self.fleet.done("drift", node=NODE).published["operations"]
        data: dict[str, Any] = only["data"]
        return data

    def reconcile(self, **asked: Any) -> tuple[dict[str, Any], bool]:
        """The report, and whether anything changed."""
        run = self.fleet.done("reconcile", node=NODE, **asked)
        return run.result, any(run.changed.values())


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customers]:
    """On one node, an instance for each kind, and Anna's, to which nothing is done."""
    folder = tmp_path_factory.mktemp("registry")
    with (
        Lab(name=f"k{os.getpid()}", nodes=2, devices=1) as lab,
        registered(lab, "sqlite", f"sqlite:///{folder}/registry.db", folder) as fleet,
    ):
        with fleet.registry() as registry, registry.write() as session:
            session.scalars(select(models.Node).where(models.Node.name == NODE)).one().override_mtu = MTU
        names = {kind: f"kind{number}@example.com" for number, kind in enumerate(KINDS)}
        wanted = [
            {
                "instance": name,
                "node": NODE,
                "peers": [
                    {"name": "phone", "public_key": peer_key(name), "preshared_key": preshared_key(name)},
                    {
                        "name": "site",
                        "public_key": peer_key(f"site {name}"),
                        "allowed_ips": [SITE.format(number)],
                    },
                ],
            }
            for number, name in enumerate(names.values())
        ]
        anna = {"name": "phone", "public_key": public_key("anna"), "preshared_key": preshared_key("anna")}
        wanted.append({"instance": "anna@example.com", "node": NODE, "peers": [anna]})
        told = fleet.done("provision", instances=wanted).results
        made = Customers(fleet, {kind: told[name] for kind, name in names.items()})
        made.told["anna"] = told["anna@example.com"]
        made.node.run(["sh", "-c", "umask 77; wg genkey >/run/key"])
        yield made


ENTRIES = ("missing_peers", "unknown_peers", "mismatched_peers", "interface_issues")


def named(data: dict[str, Any], interface: str) -> dict[str, Any]:
    """What a report says of an interface: of peers the keys, of one that differs the field, of issues what is found."""
    missing, unknown, mismatched, issues = (
        [entry for entry in data[kind] if entry["interface"] == interface] for kind in ENTRIES
    )
    return {
        "missing": sorted(one["public_key"] for one in missing),
        "unknown": [one["public_key"] for one in unknown],
        "mismatched": [
            (one["public_key"], one["name"], *(different["field"] for different in one["mismatches"]))
            for one in mismatched
        ],
        "expected": {one["field"]: one["expected"] for one in issues},
        "actual": {one["field"]: str(one["actual"]) for one in issues},
    }


def should_be_named(customers: Customers, kind: str, actual: dict[str, str]) -> dict[str, Any]:
    """The same, as it should be. Where `actual` has the words that are to be in it, it is right."""
    should, told = KINDS[kind], customers.told[kind]
    first, second = (peer["public_key"] for peer in told["peers"])
    instance = customers.fleet.instance(told["instance"])
    assert instance is not None
    expected = {
        "interface": "up",
        "public_key": instance.public_key,
        "listen_port": instance.listen_port,
        "addresses": sorted(told["addresses"]),
        "mtu": MTU,
        "routes": "one to each network",
        "file mode": "0600",
        "file": "as running",
    }
    issues = should.issues or {}
    return {
        "missing": sorted((first, second)[: should.missing]),
        "unknown": [STRANGER] * should.unknown,
        "mismatched": [] if should.mismatch is None else [(first, "phone", should.mismatch)],
        "expected": {name: expected[name] for name in issues},
        "actual": {
            name: actual[name] if words in actual.get(name, "") else f"… {words} …"
            for name, words in issues.items()
        },
    }


def test_every_kind_is_found_named_repaired_and_gone(customers: Customers) -> None:
    fleet, node = customers.fleet, customers.node
    before = read_state(node)
    assert customers.look()["has_drift"] is False
    with anna_keeps_pinging(customers.fleet, customers.told["anna"]):
        for kind, one in KINDS.items():
            customers.by_hand(kind, one.by_hand)
        report = customers.look()
        found = {kind: named(report, customers.interface(kind)) for kind in KINDS}
        assert found == {kind: should_be_named(customers, kind, one["actual"]) for kind, one in found.items()}
        known = {customers.interface(kind) for kind in KINDS}
        assert {entry["interface"] for entries in ENTRIES for entry in report[entries]} <= known

        drifted = read_state(node)
        result, changed = customers.reconcile(**NOTHING)
        assert (result["message"], changed) == ("Nothing to repair that the switches allow", False)
        assert read_state(node) == drifted

        result, changed = customers.reconcile(**EVERYTHING)
        data = result["data"]
        assert changed
        assert data["errors"] == []
        numbers = data["summary"]
        # What is told of its peers tells of the file, too.
        assert {one["interface"] for one in data["instances"] if one["changed"]} == {
            customers.interface(kind)
            for kind, one in KINDS.items()
            if one.issues and not (one.mismatch or one.unknown or one.missing == 1)
        }
        assert f", Put right {numbers['instances_count']} instances, 0 errors" in result["message"]
        assert numbers["removed_count"] == sum(one.unknown for one in KINDS.values())
        assert numbers["added_count"] == sum(one.missing for one in KINDS.values())
        assert numbers["updated_count"] == sum(one.mismatch is not None for one in KINDS.values())

        assert customers.look()["has_drift"] is False
        after = read_state(node)
        # A route that somebody else has set is nobody else's to take away.
        theirs = customers.interface("somebody else's route")
        assert after.interfaces == {**before.interfaces, theirs: drifted.interfaces[theirs]}
        assert {path: file.mode for path, file in after.files.items()} == {
            path: file.mode for path, file in before.files.items()
        }
        again, changed = customers.reconcile(**EVERYTHING)
        assert (again["message"], changed) == ("Nothing to repair", False)
        assert read_state(node) == after
    written_otherwise = f"/etc/wireguard/{customers.interface('other spellings')}.conf"
    assert {path for path, file in after.files.items() if file != before.files[path]} <= {written_otherwise}
    secrets = fleet.secrets()
    assert not [output for output in fleet.outputs for secret in secrets if secret in output]


def test_what_nobody_knows_and_what_bears_an_instances_name(customers: Customers) -> None:
    """It is named and left alone, and holds up nobody else. What is not called as instances are does not count."""
    node, name = customers.node, customers.interface("no interface")
    other = customers.interface("missing peer")
    before = read_state(node)
    by_hand = (
        'ip link delete "$1"; while [ -e "/run/wireguard/$1.sock" ]; do sleep 0.05; done; '
        'ip link add "$1" type bridge; echo theirs >/etc/wireguard/wg986.conf; '
        "for name in wg987 vpn4; do wireguard-go $name >/dev/null 2>&1 </dev/null; done; "
        "echo theirs >/etc/wireguard/vpn4.conf"
    )
    node.run(["sh", "-euc", by_hand, "sh", name])
    customers.by_hand("missing peer", KINDS["missing peer"].by_hand)
    theirs = read_state(node)
    report = customers.look()
    fields = ("interface", "field", "expected", "actual")
    assert [tuple(one[field] for field in fields) for one in report["interface_issues"]] == [
        (name, "interface", "up", "not WireGuard's (bridge)"),
        (other, "file", "as running", "1 peer only in the file"),
        ("wg986", "interface", "absent", "file"),
        ("wg987", "interface", "absent", "down"),
    ]
    assert [one["interface"] for one in report["missing_peers"]] == [other]

    data = customers.reconcile(**EVERYTHING)[0]["data"]
    (error,) = data["errors"]
    assert (error["peer"], error["interface"], error["action"]) == ("", name, "bring up")
    assert "is not a WireGuard interface (it is of kind bridge)" in error["error"]
    assert len(data["added"]) == 1
    after = read_state(node)
    for left_alone in (name, "wg986", "wg987", "vpn4"):
        assert after.of(left_alone) == theirs.of(left_alone)
    assert after.interfaces[other] == before.interfaces[other]

    node.run(["sh", "-euc", 'for link in "$1" wg987 vpn4; do ip link delete "$link"; done', "sh", name])
    node.run(["rm", "/etc/wireguard/wg986.conf", "/etc/wireguard/vpn4.conf"])
    assert len(customers.reconcile()[0]["data"]["added"]) == 2
    assert customers.look()["has_drift"] is False
    assert read_state(node).interfaces == before.interfaces


def test_half_a_dump_is_an_error_and_no_drift(customers: Customers) -> None:
    """Cut at the end of a line, and `wg` says that all is well."""
    fleet, node = customers.fleet, customers.node
    before = read_state(node)
    lines = len(node.run(["wg", "show", "all", "dump"]).stdout.splitlines())
    with stand_ins(node):
        for cut, why in ((lines - 1, "nothing is concluded from that"), (lines // 2, "does not name it")):
            node.run(["sh", "-c", order(0, f"lines-{cut}")])
            run = fleet.run("drift")
            nodes = {
                one["node"]: run.published["data"]["nodes"][one["node_id"]]
                for one in run.published["operations"]
            }
            assert run.code == 2
            assert nodes[OTHER]["has_drift"] is False
            assert nodes[NODE]["has_drift"] is None
            assert why in nodes[NODE]["error"]
        mended = fleet.run("reconcile", node=NODE, **EVERYTHING)
        assert (mended.code, mended.result["status"], mended.result["code"]) == (2, "error", 500)
        assert set(mended.changed.values()) == {0}
        node.run(["sh", "-c", WORK_AS_EVER])
    after = read_state(node)
    assert (after.interfaces, after.files) == (before.interfaces, before.files)
    assert customers.look()["has_drift"] is False
