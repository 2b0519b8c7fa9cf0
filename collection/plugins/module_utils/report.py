# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans in words and as diffs. Secrets appear as fingerprints, and nothing grows with the number of peers."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Sequence, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import KEY_PATTERN, fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import (
    peer_changes,
    replace_endpoint,
    route_changes,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    InterfaceState,
    Link,
    Peer,
    Route,
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

# So many peers of one interface are spelt out in a diff; more are counted.
DIFF_PEERS = 200
_SECRET_LINE = re.compile(r"^(\s*(?:PrivateKey|PresharedKey)\s*=\s*)(.*)$", re.IGNORECASE | re.MULTILINE)
# What may be a key or most of one, wherever it stands: in a comment, in a hook, after a mistyped name.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{32,}={0,2}")


def count(number: int, what: str) -> str:
    """``1 peer``, ``2 peers``."""
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def summary(steps: Sequence[Step]) -> List[str]:
    """Each step in a few words."""
    return [_words(step) for step in steps]


def _words(step: Step) -> str:
    if isinstance(step, WriteFile):
        return "create the config file" if step.before is None else "rewrite the config file"
    if isinstance(step, RemoveFile):
        return "remove the config file"
    if isinstance(step, RunHooks):
        return f"run {count(len(step.commands), step.name + ' command')}"
    if isinstance(step, StartUnit):
        return "start the unit"
    if isinstance(step, StopUnit):
        return "stop the unit"
    if isinstance(step, AdoptUnit):
        return "take the running interface into the unit"
    if isinstance(step, EnableUnit):
        return "enable the unit" if step.enabled else "disable the unit"
    if isinstance(step, CreateLink):
        return "create the interface"
    if isinstance(step, DeleteLink):
        return "delete the interface"
    if isinstance(step, SetDevice):
        named = (
            ("private key", step.private_key),
            ("listen port", step.listen_port),
            ("fwmark", step.fwmark),
        )
        return "set " + ", ".join(word for word, value in named if value is not None)
    if isinstance(step, SetPeers):
        parts = (("add", step.added), ("update", step.updated), ("remove", step.remove))
        return " and ".join(f"{verb} {count(len(keys), 'peer')}" for verb, keys in parts if keys)
    if isinstance(step, SetAddresses):
        addresses = (("add", step.add), ("remove", step.remove))
        return " and ".join(f"{verb} {count(len(texts), 'address')}" for verb, texts in addresses if texts)
    if isinstance(step, SetMtu):
        return f"set the MTU to {step.mtu}"
    if isinstance(step, LinkUp):
        return "bring the interface up"
    if isinstance(step, SetRoutes):
        routes = (("add", step.add), ("remove", step.remove))
        return " and ".join(f"{verb} {count(len(some), 'route')}" for verb, some in routes if some)
    raise AssertionError(f"no words for {type(step).__name__}")


def diff(desired: Desired, before: InterfaceState, wanted: InterfaceState) -> Dict[str, str]:
    """What changes, as Ansible's diff mode shows it: lines of before and after, only of what differs.

    Values that are chosen in the course of the run (a fresh key, a free port) are named so, not shown.
    """
    old: List[str] = []
    new: List[str] = []
    for was, will in (
        _file_lines(desired.config_path, before, wanted),
        _device_lines(before, wanted),
        _peer_lines(before, wanted),
        _link_lines(before, wanted),
        _route_lines(before, wanted),
        _unit_lines(before, wanted),
    ):
        old += was
        new += will
    chosen = _chosen(desired, before, wanted)
    return {
        "before_header": desired.name,
        "after_header": desired.name,
        "before": "".join(line + "\n" for line in old),
        "after": "".join(chosen.get(line, line) + "\n" for line in new),
    }


def _chosen(desired: Desired, before: InterfaceState, wanted: InterfaceState) -> Dict[str, str]:
    """Lines that hold a value which nobody asked for and nothing on the node had."""
    lines: Dict[str, str] = {}
    known = (before.device, before.config)
    if wanted.device is None:
        return lines
    if desired.private_key is None and not any(holder and holder.private_key for holder in known):
        shown = fingerprint(wanted.device.private_key)
        lines[f"PrivateKey = {shown}"] = "PrivateKey = (generated)"
        lines[f"private_key: {shown}"] = "private_key: (generated)"
    if desired.listen_port is None and not any(holder and holder.listen_port for holder in known):
        port = wanted.device.listen_port
        lines[f"ListenPort = {port}"] = "ListenPort = (a free one)"
        lines[f"listen_port: {port}"] = "listen_port: (a free one)"
    return lines


Lines = Tuple[List[str], List[str]]


def _file_lines(path: str, before: InterfaceState, wanted: InterfaceState) -> Lines:
    """The lines before the peers that differ; peers have lines of their own."""
    if before.file == wanted.file and before.file_is_private:
        return [], []
    was = [] if before.file is None else _head(before.file)
    will = [] if wanted.file is None else _head(wanted.file)
    live = before.device.peers if before.device else {}
    then, now = before.config.peers if before.config else {}, wanted.config.peers if wanted.config else {}
    lost = sorted(key for key in then if key not in now and key not in live)
    was += [f"{_peer_line(then[key])} (only in the file)" for key in lost[:DIFF_PEERS]]
    head = [f"file: {path}" + ("" if before.file_is_private else " (readable by others)")]
    if was == will and before.file_is_private:
        changes = peer_changes(before, wanted)
        if not changes.put and not changes.remove:
            # What differs is among the peers of the file, and none of those that run changes.
            return head, [f"file: {path} (its peers written anew)"]
    return (
        ([] if before.file is None else head) + [line for line in was if line not in will],
        ([] if wanted.file is None else [f"file: {path}"]) + [line for line in will if line not in was],
    )


def _head(text: str) -> List[str]:
    lines = text.split("[Peer]", 1)[0].splitlines()[:100]
    return [without_secrets(line) for line in lines if line.strip()]


def without_secrets(line: str) -> str:
    """A line of a config file with its secret, if any, as a fingerprint. A broken secret is hidden whole, and so is
    all that looks like a key in any other line. Bytes that are no text are replaced."""
    line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    match = _SECRET_LINE.match(line)
    if match is None:
        return _KEY_LIKE.sub("(hidden)", line)[:300]
    value = match.group(2).strip()
    return match.group(1) + (fingerprint(value) if KEY_PATTERN.fullmatch(value) else "(hidden)")


def _device_lines(before: InterfaceState, wanted: InterfaceState) -> Lines:
    def lines(state: InterfaceState) -> List[str]:
        device = state.device
        if device is None:
            return []
        return [
            f"private_key: {fingerprint(device.private_key)}",
            f"listen_port: {device.listen_port}",
            f"fwmark: {device.fwmark}",
        ]

    was, will = lines(before), lines(wanted)
    return [line for line in was if line not in will], [line for line in will if line not in was]


def _peer_lines(before: InterfaceState, wanted: InterfaceState) -> Lines:
    changes = peer_changes(before, wanted)
    put = {peer.public_key: peer for peer in changes.put}
    keys = sorted([*changes.before, *changes.added])
    # Where devices were last seen is nobody's change: an endpoint is shown where it is asked for, and what was before.
    asked = before.config.peers if before.config else {}
    shown = {
        key: replace_endpoint(
            peer, asked[key].endpoint if key in asked and key in put and put[key].endpoint else None
        )
        for key, peer in changes.before.items()
    }
    old = [_peer_line(shown[key]) for key in keys[:DIFF_PEERS] if key in shown]
    new = [_peer_line(put[key]) for key in keys[:DIFF_PEERS] if key in put]
    if len(keys) > DIFF_PEERS:
        new.append(f"({len(keys) - DIFF_PEERS} more peers change)")
    return old, new


def _link_lines(before: InterfaceState, wanted: InterfaceState) -> Lines:
    def lines(link: Optional[Link], mtu: Optional[int]) -> List[str]:
        if link is None:
            return []
        shown = sorted(f"address: {text}" for text in link.addresses if not text.startswith("fe80:"))
        return [*shown, f"up: {str(link.up).lower()}", *([f"mtu: {mtu}"] if mtu else [])]

    asked = wanted.link.mtu if wanted.link else None
    was = lines(before.link, before.link.mtu if before.link and (asked or wanted.link is None) else None)
    will = lines(wanted.link, asked)
    return [line for line in was if line not in will], [line for line in will if line not in was]


def _route_lines(before: InterfaceState, wanted: InterfaceState) -> Lines:
    change = route_changes(before, wanted)

    def lines(routes: Sequence[Route]) -> List[str]:
        return [f"route: {route.network} table {route.table}" for route in routes[:DIFF_PEERS]]

    return lines(change.remove), lines(change.add)


def _unit_lines(before: InterfaceState, wanted: InterfaceState) -> Lines:
    def lines(unit: Optional[Unit]) -> List[str]:
        return (
            [f"enabled at boot: {str(unit.enabled).lower()}", f"unit active: {str(unit.active).lower()}"]
            if unit
            else []
        )

    was, will = lines(before.unit), lines(wanted.unit)
    return [line for line in was if line not in will], [line for line in will if line not in was]


def _peer_line(peer: Peer) -> str:
    parts = [f"peer: {peer.public_key} allowed_ips {', '.join(peer.allowed_ips) or '(none)'}"]
    if peer.persistent_keepalive:
        parts.append(f"keepalive {peer.persistent_keepalive}")
    if peer.preshared_key:
        parts.append(f"preshared_key {fingerprint(peer.preshared_key)}")
    if peer.endpoint:
        parts.append(f"endpoint {peer.endpoint}")
    return " ".join(parts)
