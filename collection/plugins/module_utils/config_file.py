# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config file of an interface, ``/etc/wireguard/wgN.conf``: parse and render.

The format is wg-quick(8)'s. Files written here hold one thing more: with ``Table = auto`` or a number, wg-quick asks
the kernel once for each AllowedIP whether a route is there already, which takes 1.9 s for 1,000 peers. So the file
says ``Table = off`` and one PostUp line that sets the few routes that are really needed, between two marker comments
from which the table that was asked for is read again.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from dataclasses import replace
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import desired as check
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_interface_address,
    masked,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    InvalidInput,
    Refused,
    WireGuardError,
    shown,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import (
    ZERO_KEY,
    check_preshared_key,
    check_private_key,
    check_public_key,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import Change, worked_out
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.routes import routes_for
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config, Device, Hooks, Peer

HEADER = "# Managed by vpnfleet.wireguard: changes made here are overwritten by the next run."
_ROUTES_BEGIN = re.compile(r"# BEGIN vpnfleet routes, table (auto|[0-9]{1,10})")
_ROUTES_END = "# END vpnfleet routes"
_INTERFACE_KEYS = ("privatekey", "listenport", "fwmark", "address", "mtu", "table", "dns", "saveconfig")
_HOOK_KEYS = {"preup": "pre_up", "postup": "post_up", "predown": "pre_down", "postdown": "post_down"}
_HOOK_NAMES = {"pre_up": "PreUp", "post_up": "PostUp", "pre_down": "PreDown", "post_down": "PostDown"}


class BrokenFile(WireGuardError):
    """The file is not what wg-quick would accept. The message names the line by its number, never its value."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


def render_peer(peer: Peer) -> str:
    """One [Peer] section as it stands in a config file, ending in a newline."""
    lines = f"[Peer]\nPublicKey = {peer.public_key}\n"
    if peer.preshared_key:
        lines += f"PresharedKey = {peer.preshared_key}\n"
    if peer.allowed_ips:
        lines += f"AllowedIPs = {', '.join(peer.allowed_ips)}\n"
    if peer.persistent_keepalive:
        lines += f"PersistentKeepalive = {peer.persistent_keepalive}\n"
    if peer.endpoint:
        lines += f"Endpoint = {peer.endpoint}\n"
    return lines


def _route_lines(config: Config) -> List[str]:
    if config.table == "off":
        return ["Table = off"]
    lines = [f"# BEGIN vpnfleet routes, table {config.table}", "Table = off"]
    routes = routes_for(config.table, config.addresses, config.peers)
    for flag, mark in (("-4", False), ("-6", True)):
        networks = sorted(route.network for route in routes if (":" in route.network) is mark)
        if networks:
            table = "" if config.table == "auto" else f" table {config.table}"
            # printf repeats its format for each network, and both printf and the shell take a line of any length.
            lines.append(
                f"PostUp = printf 'route replace %s dev %i{table}\\n' {' '.join(networks)} | ip {flag} -batch -"
            )
    lines.append(_ROUTES_END)
    return lines


def render(config: Config) -> str:
    """The canonical file of `config`: one text for one meaning (peers in the order of their keys)."""
    lines = [HEADER, "[Interface]"]
    if config.private_key:
        lines.append(f"PrivateKey = {config.private_key}")
    if config.listen_port:
        lines.append(f"ListenPort = {config.listen_port}")
    if config.fwmark:
        lines.append(f"FwMark = {config.fwmark}")
    lines.extend(f"Address = {address}" for address in config.addresses)
    if config.mtu:
        lines.append(f"MTU = {config.mtu}")
    lines.extend(_route_lines(config))
    lines.extend(f"DNS = {value}" for value in config.dns)
    for name, key in _HOOK_NAMES.items():
        lines.extend(f"{key} = {command}" for command in getattr(config.hooks, name))
    head = "\n".join(lines) + "\n"
    return head + ("\n" + _render_peers(config.peers) if config.peers else "")


Sections = Tuple[List[str], List[str]]


def _render_peers(peers: Dict[str, Peer]) -> str:
    return "\n".join(worked_out(peers, "sections", _sections, _changed_sections)[1])


def _sections(peers: Dict[str, Peer]) -> Sections:
    """The keys in their order, and the section of each."""
    keys = sorted(peers)
    return keys, [render_peer(peers[key]) for key in keys]


def _changed_sections(before: Sections, changes: List[Change]) -> Sections:
    keys, texts = list(before[0]), list(before[1])
    for was, now in changes:
        peer = was or now
        if peer is None:
            continue
        place = bisect_left(keys, peer.public_key)
        if was is not None:
            del keys[place], texts[place]
        if now is not None:
            keys.insert(place, now.public_key)
            texts.insert(place, render_peer(now))
    return keys, texts


def render_for_wg(device: Device, endpoints: Mapping[str, str]) -> str:
    """The text for ``wg syncconf``: stripped of all that is wg-quick's, and complete otherwise."""
    if not device.private_key or not device.listen_port:
        raise Refused("wg syncconf without a private key and a port would remove both")
    head = f"[Interface]\nPrivateKey = {device.private_key}\nListenPort = {device.listen_port}\n"
    head += f"FwMark = {device.fwmark or 'off'}\n"
    return head + render_peers_for_wg(device.peers.values(), endpoints)


def render_peers_for_wg(peers: Iterable[Peer], endpoints: Mapping[str, str]) -> str:
    """The text for ``wg addconf``: these peers and no others.

    Keepalive and preshared key are written out even where there is none, since wg before 1.0.20260223 leaves an
    omitted one as it was. An Endpoint is written only for the keys of `endpoints`: for others it would overwrite the
    place to which the device has roamed.
    """
    parts: List[str] = []
    for peer in peers:
        parts.append(
            f"[Peer]\nPublicKey = {peer.public_key}\nPresharedKey = {peer.preshared_key or ZERO_KEY}\n"
            f"AllowedIPs = {','.join(peer.allowed_ips)}\nPersistentKeepalive = {peer.persistent_keepalive or 'off'}\n"
        )
        if peer.public_key in endpoints:
            parts.append(f"Endpoint = {endpoints[peer.public_key]}\n")
    return "".join(parts)


def parse_fwmark(value: str) -> int:
    """The value of FwMark as a number; "off" is 0. Raises InvalidInput."""
    if value.lower() == "off":
        return 0
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", value):
        return int(value, 16)
    return check.integer(value, "FwMark", 0, 4294967295)


def parse_beside(text: str, live: Mapping[str, Peer]) -> Config:
    """As parse, and ten times quicker when the peers of the file are written as they are here and are just those
    that run, `live`."""
    head, mark, _rest = text.partition("\n[Peer]\n")
    peers = {key: _without_endpoint(peer) for key, peer in live.items()}
    if mark and text[len(head) + 1 :] == _render_peers(peers):
        return replace(parse(head), peers=peers)
    return parse(text)


def _without_endpoint(peer: Peer) -> Peer:
    return peer if peer.endpoint is None else peer._replace(endpoint=None)


class AnotherDigest(WireGuardError):
    """Of a file, no more than a digest was read, and that is not of the peers that run: all of it has to be read."""


def beside_digest(head: str, digest: str, live: Dict[str, Peer]) -> Config:
    """As parse_beside, of a file of which there are the text up to its first [Peer] and a digest from there on. For
    comparing alone: the peers are `live` itself, with the places at which devices were seen.

    Raises AnotherDigest when the file's peers are others, or are written in another way.
    """
    rest = _render_peers({key: _without_endpoint(peer) for key, peer in live.items()})
    if hashlib.sha256(rest.encode("ascii", "replace")).hexdigest() != digest:
        raise AnotherDigest("the config file is not as what runs")
    return replace(parse(head.partition("\n[Peer]\n")[0]), peers=live)


def parse(text: str) -> Config:
    """Read a config file. SaveConfig is passed over: with it, wg-quick would overwrite the file at the next
    stop. Anything that wg or wg-quick would refuse raises BrokenFile."""
    interface: Dict[str, List[Tuple[int, str]]] = {}
    sections: List[Tuple[int, Dict[str, str]]] = []
    table: Optional[str] = None
    hooks: Dict[str, List[str]] = {name: [] for name in _HOOK_NAMES}
    where = ""
    seen_interface = in_routes = False
    number = 0
    for number, raw in enumerate(text.split("\n"), 1):
        if raw.startswith("#"):
            comment = raw.rstrip()
            begin = _ROUTES_BEGIN.fullmatch(comment)
            if begin:
                table, in_routes = begin.group(1), True
            elif comment == _ROUTES_END:
                in_routes = False
            continue
        line = raw.partition("#")[0].strip()
        if not line or in_routes:
            continue
        if line[0] == "[":
            where = line.lower()
            if where == "[peer]":
                sections.append((number, {}))
            elif where == "[interface]" and not seen_interface:
                seen_interface = True
            else:
                raise BrokenFile(number, f"{shown(line)} is not a section that belongs here")
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or not key.isalnum():
            raise BrokenFile(number, "is neither a section nor key = value")
        if where == "[peer]":
            fields = sections[-1][1]
            if key not in ("publickey", "presharedkey", "allowedips", "persistentkeepalive", "endpoint"):
                raise BrokenFile(number, f"{shown(key)} is not a key of a [Peer]")
            # wg adds up repeated AllowedIPs and takes the last of any other repeated key.
            fields[key] = f"{fields[key]},{value}" if key == "allowedips" and key in fields else value
        elif where == "[interface]":
            if key in _HOOK_KEYS:
                hooks[_HOOK_KEYS[key]].append(value)
            elif key in _INTERFACE_KEYS:
                interface.setdefault(key, []).append((number, value))
            else:
                raise BrokenFile(number, f"{shown(key)} is not a key of [Interface]")
        else:
            raise BrokenFile(number, "stands before the first section")
    if in_routes:
        raise BrokenFile(number, f"the file ends without {_ROUTES_END!r}")
    if not seen_interface:
        raise BrokenFile(number, "there is no [Interface] section")
    return _config(interface, sections, table, hooks)


def _config(
    interface: Dict[str, List[Tuple[int, str]]],
    sections: List[Tuple[int, Dict[str, str]]],
    table: Optional[str],
    hooks: Dict[str, List[str]],
) -> Config:
    line = 1  # of the value that is being looked at

    def last(key: str) -> Optional[str]:
        nonlocal line
        if key not in interface:
            return None
        line, value = interface[key][-1]
        return value

    try:
        addresses: List[str] = []
        for number, value in interface.get("address", []):
            line = number
            addresses += (
                check_interface_address(part, "Address") for part in value.replace(",", " ").split()
            )
        private_key = last("privatekey")
        if private_key is not None:
            private_key = check_private_key(private_key, "PrivateKey")
        port_text = last("listenport")
        port = None if port_text is None else check.integer(port_text, "ListenPort", 0, 65535)
        mtu_text = last("mtu")
        mtu = None if mtu_text is None else check.integer(mtu_text, "MTU", 68, 65535)
        fwmark = parse_fwmark(last("fwmark") or "off")
        if table is None:
            table = check.check_table(last("table") or "auto", "Table")
    except InvalidInput as error:
        raise BrokenFile(line, str(error)) from None
    peers: Dict[str, Peer] = {}
    for number, fields in sections:
        try:
            if "publickey" not in fields:
                raise InvalidInput("PublicKey", "is missing")
            key = check_public_key(fields["publickey"], "PublicKey")
            peers[key] = Peer(
                key,
                _allowed_ips(fields.get("allowedips", "")),
                check_preshared_key(fields.get("presharedkey", ""), "PresharedKey"),
                check.check_keepalive(
                    fields.get("persistentkeepalive", "off").lower(), "PersistentKeepalive"
                ),
                check.check_endpoint(fields.get("endpoint"), "Endpoint"),
            )
        except InvalidInput as error:
            raise BrokenFile(number, str(error)) from None
    return Config(
        private_key=private_key,
        listen_port=port or None,
        addresses=tuple(addresses),
        peers=peers,
        mtu=mtu,
        fwmark=fwmark,
        table=table,
        hooks=Hooks(**{name: tuple(commands) for name, commands in hooks.items()}),
        dns=tuple(value for _line, value in interface.get("dns", ())),
    )


def _allowed_ips(value: str) -> Tuple[str, ...]:
    try:
        return check.check_allowed_ips(value, "AllowedIPs")
    except InvalidInput:
        # Parameters may have no host bits; in a file, wg takes them and cuts them off.
        parts = [masked(part, "AllowedIPs") for part in value.split(",") if part.strip()]
        return check.check_allowed_ips(parts, "AllowedIPs")
