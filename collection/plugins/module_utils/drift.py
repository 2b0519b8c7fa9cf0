# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The difference between the peers that should be and those that are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import check_interface_address
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import states_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    DEFAULT_CONFIG_DIR,
    PEER_LABELS,
    Desired,
    check_name,
    check_peers,
    integer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import check_public_key, fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import (
    addresses_there,
    same_peer,
    table_in_use,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import Node, read_node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import count
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import (
    MAX_ENTRIES,
    bound,
    scrub,
    secrets_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import wanted_routes
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.second_reading import require_whole
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import Source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Peer

# The lists of an answer, and what the number of each is called in its summary.
COUNTS = {
    "unknown_peers": "unknown_count",
    "missing_peers": "missing_count",
    "mismatched_peers": "mismatched_count",
    "interface_issues": "interface_count",
}
ENTRIES = tuple(COUNTS)
# What an interface may be asked to be. "any": it is somebody else's to say, and it is not even read.
STATES = ("present", "absent", "any")
FIELDS = ("interface", "state", "peers", "public_key", "listen_port", "addresses", "mtu")
NOT_WIREGUARD = "not WireGuard's"
# What instances are called.
_INSTANCE = re.compile(r"wg([0-9]+)")


@dataclass(frozen=True)
class Expected:
    """What one interface should be. None: any is fine."""

    interface: str
    peers: Dict[str, Peer]
    labels: Dict[str, Dict[str, Any]]  # by public key: what the registry calls the peer
    listen_port: Optional[int] = None
    state: str = "present"
    public_key: Optional[str] = None
    addresses: Optional[FrozenSet[str]] = None
    mtu: Optional[int] = None


def compare(expected: Expected, actual: InterfaceState) -> Dict[str, List[Dict[str, Any]]]:
    """The drift of one interface as lists of entries by kind (ENTRIES). Pure."""
    name = expected.interface
    found: Dict[str, List[Dict[str, Any]]] = {kind: [] for kind in ENTRIES}
    if expected.state == "absent":
        left = _what_is_left(actual)
        found["interface_issues"] = [_issue(name, "interface", "absent", left)] if left else []
        return found
    live = actual.device.peers if actual.device else {}
    for key in sorted(live.keys() - expected.peers.keys()):
        peer = live[key]
        found["unknown_peers"].append(
            {
                "interface": name,
                "public_key": key,
                "allowed_ips": list(peer.allowed_ips),
                "endpoint": peer.endpoint,
                "persistent_keepalive": peer.persistent_keepalive,
            }
        )
    for key, peer in expected.peers.items():
        there = live.get(key)
        if there is not None and same_peer(peer, there):
            continue  # as nearly all are
        label = {text: expected.labels.get(key, {}).get(text) for text in PEER_LABELS}
        if there is None:
            found["missing_peers"].append(
                {"interface": name, "public_key": key, "allowed_ips": list(peer.allowed_ips), **label}
            )
        else:
            found["mismatched_peers"].append(
                {"interface": name, "public_key": key, **label, "mismatches": mismatches(peer, there)}
            )
    found["interface_issues"] = _interface_issues(expected, actual)
    return found


def mismatches(wanted: Peer, there: Peer) -> List[Dict[str, Any]]:
    """The fields in which a live peer differs; preshared keys as fingerprints."""
    fields: List[Dict[str, Any]] = []
    for name in ("allowed_ips", "persistent_keepalive", "preshared_key"):
        expected, actual = getattr(wanted, name), getattr(there, name)
        if expected != actual:
            if name == "preshared_key":
                expected, actual = fingerprint(expected), fingerprint(actual)
            elif name == "allowed_ips":
                expected, actual = list(expected), list(actual)
            fields.append({"field": name, "expected": expected, "actual": actual})
    return fields


def unexpected(
    node: Node, expected: Sequence[Expected], left_behind: Mapping[str, str]
) -> List[Dict[str, Any]]:
    """The instances on a node that are none of `expected`, as entries of interface_issues. `left_behind` is what there
    is of interfaces besides themselves, as `traces` tells it."""
    known = {item.interface for item in expected}
    there = node.wireguard()
    names = [name for name in there | left_behind.keys() if name not in known and _INSTANCE.fullmatch(name)]
    found = []
    for name in sorted(names, key=lambda name: (int(name[2:]), name)):
        state = "up" if name in node.links and node.links[name].up else "down"
        found.append(_issue(name, "interface", "absent", state if name in there else left_behind[name]))
    return found


def taken(node: Node, expected: Sequence[Expected]) -> List[Dict[str, Any]]:
    """Those of `expected` whose name something else than WireGuard bears, as entries of interface_issues."""
    return [
        _issue(
            item.interface,
            "interface",
            "up" if item.state == "present" else "absent",
            f"{NOT_WIREGUARD} ({node.kinds.get(item.interface) or 'hardware'})",
        )
        for item in expected
        if item.interface in node.links
        and item.interface not in node.devices
        and item.interface not in node.unreadable
    ]


def is_missing(issue: Mapping[str, Any]) -> bool:
    """Whether an entry of interface_issues says that an interface is not there."""
    return (
        issue["field"] == "interface"
        and issue["expected"] == "up"
        and (issue["actual"] == "missing" or str(issue["actual"]).startswith(NOT_WIREGUARD))
    )


def _issue(interface: str, name: str, should: Any, found: Any) -> Dict[str, Any]:
    return {"interface": interface, "field": name, "expected": should, "actual": found}


def _what_is_left(actual: InterfaceState) -> str:
    """What there is of an interface, in a word; empty when there is nothing."""
    if actual.device or actual.link:
        return "up" if actual.link is None or actual.link.up else "down"
    if actual.unit and (actual.unit.enabled or actual.unit.active):
        return "enabled at boot" if actual.unit.enabled else "unit active"
    return "file" if actual.file is not None else ""


def _interface_issues(expected: Expected, actual: InterfaceState) -> List[Dict[str, Any]]:
    issues: List[Dict[str, Any]] = []

    def issue(name: str, should: Any, found: Any) -> None:
        issues.append(_issue(expected.interface, name, should, found))

    if actual.device is None:
        issue("interface", "up", "missing")
    elif actual.link is not None and not actual.link.up:
        issue("interface", "up", "down")
    if actual.device:
        if expected.public_key and actual.device.public_key != expected.public_key:
            issue("public_key", expected.public_key, actual.device.public_key)
        if expected.listen_port and actual.device.listen_port != expected.listen_port:
            issue("listen_port", expected.listen_port, actual.device.listen_port)
    if actual.device and actual.link:
        live = {text for text in actual.link.addresses if not text.startswith("fe80:")}
        if expected.addresses is not None and live != expected.addresses:
            issue("addresses", sorted(expected.addresses), sorted(live))
        if expected.mtu and actual.link.mtu != expected.mtu:
            issue("mtu", expected.mtu, actual.link.mtu)
    lost = lost_routes(expected, actual)
    if lost:
        issue("routes", "one to each network", f"{lost} missing")
    if actual.unit and not actual.unit.enabled:
        issue("enabled at boot", True, False)
    if not actual.file_is_private:
        issue("file mode", "0600", "readable by others")
    if actual.file is None:
        issue("file", "as running", "missing")
    elif actual.config is None:
        issue("file", "as running", f"broken: {actual.broken}")
    elif actual.device is not None:
        difference = file_difference(actual)
        if difference:
            issue("file", "as running", difference)
    return issues


def lost_routes(expected: Expected, actual: InterfaceState) -> int:
    """How many networks of those peers that run as they should have no route. Of others it goes without saying."""
    device, link = actual.device, actual.link
    if device is None or link is None or not link.up:
        return 0  # the routes of an interface that is down are gone with it
    addresses = expected.addresses if expected.addresses is not None else addresses_there(actual)
    table = actual.config.table if actual.config else table_in_use(actual)
    lost = {route.network for route in wanted_routes(table, addresses, device.peers.values()) - actual.routes}
    if not lost:
        return 0
    right = [peer for key, peer in expected.peers.items() if key in device.peers]
    return len(
        lost
        & {
            net
            for peer in right
            if same_peer(peer, device.peers[peer.public_key])
            for net in peer.allowed_ips
        }
    )


_ONLY_PEERS = re.compile(r"\d+ peers? (only in the file|only running|different)")


def only_peers_differ(difference: str) -> bool:
    """Whether what `file_difference` says is all about peers. Any repair of peers writes the file anew."""
    return all(_ONLY_PEERS.fullmatch(part) for part in difference.split(", "))


def file_difference(actual: InterfaceState) -> str:
    """In which respect the config file says something else than what runs; empty when in none."""
    device, config = actual.device, actual.config
    if device is None or config is None:
        return ""
    parts: List[str] = []
    # A long file that was read by its digest has the very peers that run.
    same = config.peers is device.peers
    common = set() if same else config.peers.keys() & device.peers.keys()
    only_file = 0 if same else len(config.peers) - len(common)
    only_running = 0 if same else len(device.peers) - len(common)
    different = sum(not same_peer(config.peers[key], device.peers[key]) for key in common)
    if only_file:
        parts.append(f"{count(only_file, 'peer')} only in the file")
    if only_running:
        parts.append(f"{count(only_running, 'peer')} only running")
    if different:
        parts.append(f"{count(different, 'peer')} different")
    if config.private_key != device.private_key:
        parts.append("another private key")
    if config.listen_port and config.listen_port != device.listen_port:
        parts.append(f"listen port {config.listen_port}")
    if config.fwmark != device.fwmark:
        parts.append(f"fwmark {config.fwmark}")
    if actual.link is not None:
        live = {text for text in actual.link.addresses if not text.startswith("fe80:")}
        if live - set(config.addresses) or set(config.addresses) - actual.link.addresses:
            parts.append("other addresses")
        if config.mtu and config.mtu != actual.link.mtu:
            parts.append(f"MTU {config.mtu}")
    return ", ".join(parts)


def check_expected(params: Mapping[str, Any]) -> List[Expected]:
    """The interfaces to look at out of a module's parameters."""
    batch = params.get("interfaces")
    single = batch is None
    if batch is None:
        if params.get("interface") is None:
            raise InvalidInput("", "one of interface, interfaces and src is needed")
        batch = [{key: params.get(key) for key in FIELDS}]
    elif params.get("interface") is not None:
        raise InvalidInput("interface", "goes with a single interface, not beside interfaces or src")
    if not isinstance(batch, list):
        raise InvalidInput("interfaces", "is not a list")
    found: Dict[str, Expected] = {}
    for index, fields in enumerate(batch):
        at = "" if single else f"interfaces[{index}]."
        item = _check_one(fields, at)
        if item.interface in found:
            raise InvalidInput(f"{at}interface", f"{item.interface} is there twice")
        found[item.interface] = item
    return list(found.values())


def _check_one(fields: object, at: str) -> Expected:
    if not isinstance(fields, dict):
        raise InvalidInput(at.rstrip("."), "is not a mapping")
    unknown = sorted(str(key) for key in fields if key not in FIELDS)
    if unknown:
        raise InvalidInput(f"{at}{unknown[0][:40]}", f"is not one of {', '.join(FIELDS)}")
    state = fields.get("state") or "present"
    if state not in STATES:
        raise InvalidInput(f"{at}state", f"{shown(state)} is not one of {', '.join(STATES)}")
    if fields.get("peers") is None and state == "present":
        # Taking this for "no peers" would make every live peer an unknown one.
        raise InvalidInput(f"{at}peers", "is needed (an empty list when there should be none)")
    name = check_name(fields.get("interface"), f"{at}interface")
    if state != "present":
        return Expected(name, {}, {}, state=state)
    labels = {}
    peers = check_peers(fields["peers"], f"{at}peers")
    for element in fields["peers"]:
        given = {key: element[key] for key in PEER_LABELS if element.get(key) is not None}
        if given:
            labels[element["public_key"]] = given

    def number(key: str, low: int) -> Optional[int]:
        return None if fields.get(key) is None else integer(fields[key], f"{at}{key}", low, 65535)

    public_key, addresses = fields.get("public_key"), fields.get("addresses")
    if addresses is not None:
        if not isinstance(addresses, list):
            raise InvalidInput(f"{at}addresses", "is not a list")
        addresses = frozenset(
            check_interface_address(text, f"{at}addresses[{index}]") for index, text in enumerate(addresses)
        )
    return Expected(
        name,
        peers,
        labels,
        number("listen_port", 1),
        public_key=None if public_key is None else check_public_key(public_key, f"{at}public_key"),
        addresses=addresses,
        mtu=number("mtu", 576),
    )


def look(
    expected: Sequence[Expected], source: Source, config_dir: str = DEFAULT_CONFIG_DIR
) -> Dict[str, Any]:
    """What wg_drift answers without any switch, of a node that is read from somewhere else; `expected` is complete.

    Raises WireGuardError when an interface cannot be read: nothing is concluded from half a picture.
    """
    node = read_node(None, source)
    answer, states = compare_all(node, expected, config_dir, complete=True)
    return finish({**answer, "changed": False}, all_secrets(expected, states))


def compare_all(
    node: Node, expected: Sequence[Expected], config_dir: str, complete: bool
) -> Tuple[Dict[str, Any], Dict[str, InterfaceState]]:
    """The drift of a node: the lists of entries in full, `has_drift` and `summary`; and the states that were compared.

    Raises WireGuardError when an interface cannot be read, or when two readings tell of different peers.
    """
    looked_at = [item for item in expected if item.state != "any"]
    answer: Dict[str, Any] = {kind: [] for kind in ENTRIES}
    answer["interface_issues"] += taken(node, looked_at)
    names = {issue["interface"] for issue in answer["interface_issues"]}
    looked_at = [item for item in looked_at if item.interface not in names]
    states = states_of(node, [Desired(name=item.interface, config_dir=config_dir) for item in looked_at])
    for item in looked_at:
        for kind, entries in compare(item, states[item.interface]).items():
            answer[kind] += entries
    short = {entry["interface"] for entry in answer["missing_peers"]}
    require_whole({name: node.devices[name] for name in sorted(short & node.devices.keys())}, node.source)
    if complete:
        answer["interface_issues"] += unexpected(node, expected, node.source.traces(config_dir))
    numbers = {kind: len(answer[kind]) for kind in ENTRIES}
    answer["has_drift"] = any(numbers.values())
    answer["summary"] = {
        **{COUNTS[kind]: number for kind, number in numbers.items()},
        "total_issues": sum(numbers.values()),
    }
    return answer, states


def all_secrets(expected: Sequence[Expected], states: Mapping[str, InterfaceState]) -> Set[str]:
    """The secrets on a node, and those that should be there."""
    secrets = secrets_of(states.values())
    secrets.update(
        peer.preshared_key for item in expected for peer in item.peers.values() if peer.preshared_key
    )
    return secrets


def finish(answer: Dict[str, Any], secrets: Set[str]) -> Dict[str, Any]:
    """The answer as it is printed: bounded, and free of secrets."""
    # What concerns whole interfaces is the last to be cut.
    bound([answer], reversed(ENTRIES), MAX_ENTRIES)
    for kind in ENTRIES:
        del answer[f"{kind}_count"]  # the summary says it
    cleaned: Dict[str, Any] = scrub(answer, secrets)
    return cleaned
