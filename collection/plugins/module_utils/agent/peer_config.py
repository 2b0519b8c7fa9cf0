# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration that a syncconf brings: checked line by line, and nothing in it that only wg-quick knows."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import check_allowed_ip
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import parse_fwmark
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    check_endpoint,
    check_keepalive,
    check_overlap,
    integer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import (
    check_preshared_key,
    check_private_key,
    check_public_key,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import PeerMap, derived
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer

_WG_QUICK = frozenset(
    ("address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig")
)


class PeerConfig(NamedTuple):
    """What a configuration says. None: it does not say."""

    private_key: Optional[str]
    listen_port: Optional[int]
    fwmark: Optional[int]
    peers: Dict[str, Peer]


def parse_peer_config(text: str) -> PeerConfig:
    """Read a configuration as ``wg setconf`` takes it, and more strictly: what wg would pass over, mask or merge
    silently is refused. Raises InvalidInput that names the line by its number and never repeats a secret."""
    interface, found = _sections(text)
    peers = PeerMap({})
    for line, peer in found:
        if peer.public_key in peers:
            raise _at(line, f"{peer.public_key} is there twice")
        peers[peer.public_key] = peer
    return _checked(interface, peers)


class Known(NamedTuple):
    """A configuration that was read: what stands between two lines that say [Peer] and means one peer each, and all
    peers."""

    sections: Dict[str, Peer]
    peers: PeerMap


NOTHING = Known({}, PeerMap({}))


def parse_known(text: str, known: Known) -> Tuple[PeerConfig, Known]:
    """As parse_peer_config, and quickly when most [Peer] sections are those of `known`. Returns what is known then."""
    head, *texts = ("\n" + text).split("\n[Peer]\n")
    now = frozenset(texts)
    wrong = len(now) != len(texts)
    try:
        interface, before_first = _sections(head)
        wrong = wrong or bool(before_first)
        new = {part: _single(part) for part in now.difference(known.sections)}
    except (InvalidInput, ValueError):
        wrong, new = True, {}
    gone = known.sections.keys() - now
    sections = dict(known.sections)
    removed = {sections.pop(part).public_key for part in gone}
    sections.update(new)
    peers = derived(
        known.peers, list(new.values()), removed.difference([peer.public_key for peer in new.values()])
    )
    if wrong or len(peers) != len(texts):
        # Something is wrong, or written in another way. The reading of the whole tells what, and in which line.
        return parse_peer_config(text), NOTHING
    return _checked(interface, peers), Known(sections, peers)


def _single(section: str) -> Peer:
    """The one peer of a section. Raises InvalidInput, or ValueError when that is not what it is."""
    _interface, ((_line, peer),) = _sections("[Peer]\n" + section)
    return peer


def _checked(interface: Dict[str, str], peers: PeerMap) -> PeerConfig:
    if not peers:
        raise InvalidInput("config", "holds no [Peer]")
    check_overlap(peers, "config")
    return PeerConfig(
        interface.get("privatekey"),
        int(interface["listenport"]) if "listenport" in interface else None,
        int(interface["fwmark"]) if "fwmark" in interface else None,
        peers,
    )


def _sections(text: str) -> Tuple[Dict[str, str], List[Tuple[int, Peer]]]:
    """The fields of [Interface], and the peers, each with the number of the line that says [Peer]."""
    interface: Dict[str, str] = {}
    peers: List[Tuple[int, Peer]] = []
    fields: Dict[str, str] = {}
    section, start = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        if "\0" in raw:
            raise _at(number, "holds a NUL byte")
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        if not line.replace("\t", " ").isprintable():
            raise _at(number, "holds a control character")
        if line[0] == "[":
            if section == "[peer]":
                peers.append((start, _peer(fields, start)))
            first = not section
            section, start, fields = line.lower(), number, {}
            if section != "[peer]" and not (section == "[interface]" and first):
                raise _at(number, f"{shown(line)} is not a section that belongs here")
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        key = key.lower()
        if not equals or not key.isalnum():
            raise _at(number, "is neither a section nor key = value")
        if section == "[peer]":
            _take(fields, key, value, number)
        elif section == "[interface]":
            _take_of_interface(interface, key, value, number)
        else:
            raise _at(number, "stands before the first section")
    if section == "[peer]":
        peers.append((start, _peer(fields, start)))
    return interface, peers


def _at(line: int, problem: str) -> InvalidInput:
    return InvalidInput("config", f"line {line}: {problem}")


def _take(fields: Dict[str, str], key: str, value: str, line: int) -> None:
    """Check one line of a [Peer]; what stays to be checked are the fields as a whole."""
    if key == "allowedips":
        if key in fields:
            value = f"{fields[key]},{value}"
    elif key in fields:
        raise _at(line, f"{shown(key)} is there twice in one [Peer]")
    elif key not in ("publickey", "presharedkey", "persistentkeepalive", "endpoint"):
        raise _at(line, _unknown(key, "[Peer]"))
    fields[key] = value


def _peer(fields: Dict[str, str], start: int) -> Peer:
    try:
        if "publickey" not in fields:
            raise InvalidInput("PublicKey", "is missing")
        preshared = fields.get("presharedkey")
        endpoint = fields.get("endpoint")
        if endpoint == "":
            raise InvalidInput("Endpoint", "is empty")
        return Peer(
            check_public_key(fields["publickey"], "PublicKey"),
            _networks(fields.get("allowedips", "")),
            None if preshared is None else _preshared(preshared),
            check_keepalive(fields.get("persistentkeepalive", "off").lower(), "PersistentKeepalive"),
            None if endpoint is None else check_endpoint(endpoint, "Endpoint"),
        )
    except InvalidInput as error:
        raise _at(start, f"[Peer]: {error}") from None


def _preshared(text: str) -> Optional[str]:
    if not text:
        raise InvalidInput("PresharedKey", "is empty")
    return check_preshared_key(text, "PresharedKey")


def _networks(text: str) -> Tuple[str, ...]:
    found: List[str] = [
        check_allowed_ip(part.strip(), "AllowedIPs") for part in text.split(",") if part.strip()
    ]
    if len(found) < 2:
        return tuple(found)
    if len(set(found)) != len(found):
        raise InvalidInput("AllowedIPs", "a network is there twice")
    return tuple(sorted(found))


def _take_of_interface(interface: Dict[str, str], key: str, value: str, line: int) -> None:
    if key in interface:
        raise _at(line, f"{shown(key)} is there twice")
    try:
        if key == "privatekey":
            value = check_private_key(value, "PrivateKey")
        elif key == "listenport":
            value = str(integer(value, "ListenPort", 1, 65535))
        elif key == "fwmark":
            value = str(parse_fwmark(value))
        else:
            raise InvalidInput("", _unknown(key, "[Interface]"))
    except InvalidInput as error:
        raise _at(line, str(error)) from None
    interface[key] = value


def _unknown(key: str, section: str) -> str:
    if key in _WG_QUICK:
        return f"{shown(key)} is a word of wg-quick's; here only what wg setconf knows may stand"
    return f"{shown(key)} is not a key of {section}"
