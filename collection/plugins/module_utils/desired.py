# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From parameters to what is asked for: every field checked, in normal form, errors naming the field."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    check_interface_address,
    covered,
    first_overlap,
    network,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import (
    check_preshared_key,
    check_private_key,
    check_public_key,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.peer_map import Change, worked_out
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Hooks, Peer

STATES = ("present", "disconnected", "absent")
PEER_FIELDS = ("public_key", "preshared_key", "allowed_ips", "persistent_keepalive", "endpoint")
# Fields of the registry that a peer may carry along, for reports only.
PEER_LABELS = ("name", "peer_id")
_PEER_KEYS = frozenset(PEER_FIELDS + PEER_LABELS)
HOOKS = ("pre_up", "post_up", "pre_down", "post_down")
INSTANCE_FIELDS = (
    "name",
    "state",
    "private_key",
    "public_key",
    "listen_port",
    "addresses",
    "mtu",
    "fwmark",
    "table",
    *HOOKS,
    "peers",
    "purge_peers",
    "max_removals",
    "enabled",
    "config_dir",
)
DEFAULT_CONFIG_DIR = "/etc/wireguard"

# The kernel allows 15 bytes; the characters are those that wg-quick takes.
_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
_HOOK = re.compile(r"[^\x00-\x1f\x7f#]+")


@dataclass(frozen=True)
class Desired:
    """One instance as asked for. None means: leave it as it is (or choose, when there is nothing yet)."""

    name: str
    state: str = "present"
    private_key: Optional[str] = None
    public_key: Optional[str] = None  # that an interface of this name has, else it is somebody else's
    listen_port: Optional[int] = None
    addresses: Optional[Tuple[str, ...]] = None
    mtu: Optional[int] = None
    fwmark: Optional[int] = None
    table: Optional[str] = None
    pre_up: Optional[Tuple[str, ...]] = None
    post_up: Optional[Tuple[str, ...]] = None
    pre_down: Optional[Tuple[str, ...]] = None
    post_down: Optional[Tuple[str, ...]] = None
    peers: Optional[Dict[str, Peer]] = None
    purge_peers: bool = True
    max_removals: Optional[int] = None
    enabled: Optional[bool] = True  # None: leave the unit as it is
    config_dir: str = DEFAULT_CONFIG_DIR

    def __repr__(self) -> str:
        return f"Desired({self.name}, {self.state})"

    @property
    def config_path(self) -> str:
        return os.path.join(self.config_dir, self.name + ".conf")

    def hooks(self, current: Hooks) -> Hooks:
        """The hooks that shall be: those asked for, else the current ones."""
        return Hooks(
            *(
                getattr(current, name) if getattr(self, name) is None else getattr(self, name)
                for name in HOOKS
            )
        )


def check_name(text: object, field: str) -> str:
    """Return an interface name that the kernel, wg-quick and a file name all bear, else raise InvalidInput."""
    if (
        not isinstance(text, str)
        or _NAME.fullmatch(text) is None
        or text.startswith((".", "-"))
        or text in ("all", "lo")
    ):
        raise InvalidInput(
            field,
            f"{shown(text)} is no interface name: 1 to 15 characters of a-z A-Z 0-9 _ = + . - and no . or - first",
        )
    return text


def integer(value: object, field: str, low: int, high: int) -> int:
    """Return `value` as a number from `low` to `high`; texts of digits count, as YAML and templates give them."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(field, f"{shown(value)} is not a number from {low} to {high}")
    return value


def boolean(value: object, field: str) -> bool:
    """Return `value` as a truth value, in the words that Ansible takes."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in ("yes", "true", "on", "1"):
        return True
    if word in ("no", "false", "off", "0"):
        return False
    raise InvalidInput(field, f"{shown(word)} is neither true nor false")


def _list(value: object, field: str) -> List[Any]:
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(field, "is not a list")
    return list(value)


def _only(fields: Mapping[str, Any], known: Tuple[str, ...], field: str) -> None:
    unknown = sorted(str(key) for key in fields if key not in known)
    if unknown:
        raise InvalidInput(field, f"unknown field {shown(unknown[0])}; known are {', '.join(known)}")


def check_endpoint(value: object, field: str) -> Optional[str]:
    """Return ``host:port`` or ``[v6]:port`` in checked form, None for nothing."""
    if value in (None, ""):
        return None
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon:
        raise InvalidInput(field, f"{shown(value)} is not host:port")
    integer(port, field, 1, 65535)
    if host.startswith("[") and host.endswith("]"):
        address = check_interface_address(host[1:-1], field)
        if ("." in host and ":" not in host) or not address.endswith("/128"):
            raise InvalidInput(field, f"{shown(value)} is not host:port")
        return f"[{address[:-4]}]:{int(port)}"
    if _HOSTNAME.fullmatch(host) is None:
        raise InvalidInput(field, f"{shown(value)} is not host:port")
    return f"{host}:{int(port)}"


def check_keepalive(value: object, field: str) -> int:
    """Return seconds, 0 for off."""
    if value is None or value == "off" or value is False:
        return 0
    return integer(value, field, 0, 65535)


def check_allowed_ips(value: object, field: str) -> Tuple[str, ...]:
    """Return the networks in normal form, sorted, each once."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    networks = _list(value, field)
    if len(networks) == 1:
        return (check_allowed_ip(networks[0], f"{field}[0]"),)
    return tuple(sorted({check_allowed_ip(text, f"{field}[{index}]") for index, text in enumerate(networks)}))


def check_peer(fields: object, field: str) -> Peer:
    """Return a whole peer out of a mapping of PEER_FIELDS (PEER_LABELS are passed over)."""
    try:
        return _peer(fields)
    except InvalidInput as error:
        raise error.within(field) from None


def _peer(fields: object) -> Peer:
    if not isinstance(fields, dict):
        raise InvalidInput("", "is not a mapping")
    if not fields.keys() <= _PEER_KEYS:
        _only(fields, PEER_FIELDS + PEER_LABELS, "")
    allowed = fields.get("allowed_ips")
    preshared = fields.get("preshared_key")
    endpoint = fields.get("endpoint")
    return Peer(
        check_public_key(fields.get("public_key"), "public_key"),
        () if allowed is None else check_allowed_ips(allowed, "allowed_ips"),
        None if preshared is None else check_preshared_key(preshared, "preshared_key"),
        check_keepalive(fields.get("persistent_keepalive"), "persistent_keepalive"),
        None if endpoint is None else check_endpoint(endpoint, "endpoint"),
    )


def check_peers(value: object, field: str) -> Dict[str, Peer]:
    """Return peers by public key. Refused: a key twice, and networks of two peers that overlap (wg would move the
    network silently from one to the other)."""
    peers: Dict[str, Peer] = {}
    for index, fields in enumerate(_list(value, field)):
        try:
            peer = _peer(fields)
        except InvalidInput as error:
            raise error.within(f"{field}[{index}]") from None
        if peer.public_key in peers:
            raise InvalidInput(f"{field}[{index}].public_key", f"{peer.public_key} is there twice")
        peers[peer.public_key] = peer
    check_overlap(peers, field)
    return peers


def check_overlap(peers: Dict[str, Peer], field: str) -> None:
    """Raise InvalidInput when networks of two peers overlap."""
    if worked_out(peers, "owners", _owners, _changed_owners) is not None:
        return
    overlap = first_overlap([(net, peer.public_key) for peer in peers.values() for net in peer.allowed_ips])
    if overlap:
        (first, first_owner), (second, second_owner) = overlap
        raise InvalidInput(
            field,
            f"allowed_ips of two peers overlap: {first} of {first_owner} and {second} of {second_owner}",
        )


class _Owners(NamedTuple):
    """Whose networks are, of peers that do not overlap."""

    hosts: Dict[str, str]  # of single addresses
    wider: Dict[str, str]  # of the others


# Above, they are all sorted instead of being looked through.
_MOST_WIDER = 200


def _is_host(text: str) -> bool:
    return text.endswith("/128" if ":" in text else "/32")


def _owners(peers: Dict[str, Peer]) -> Optional[_Owners]:
    owned = [(net, peer.public_key) for peer in peers.values() for net in peer.allowed_ips]
    hosts = {net: key for net, key in owned if _is_host(net)}
    if len(hosts) == len(owned):
        return _Owners(hosts, {})  # single addresses, and no two the same
    wider = {net: key for net, key in owned if not _is_host(net)}
    return None if first_overlap(owned) else _Owners(hosts, wider)


def _changed_owners(before: Optional[_Owners], changes: List[Change]) -> Optional[_Owners]:
    """None where it is not quickly said that nothing overlaps."""
    if before is None or len(before.wider) > _MOST_WIDER:
        return None
    hosts, wider = dict(before.hosts), dict(before.wider)
    for was, _now in changes:
        for net in was.allowed_ips if was is not None else ():
            del (hosts if _is_host(net) else wider)[net]
    for peer in [now for _was, now in changes if now is not None]:
        for net in peer.allowed_ips:
            if not _is_host(net) or net in hosts:
                return None
            if any(
                key != peer.public_key and covered(network(net), network(other))
                for other, key in wider.items()
            ):
                return None
            hosts[net] = peer.public_key
    return _Owners(hosts, wider)


def check_table(value: object, field: str) -> str:
    """Return "auto", "off" or a table's number as text."""
    if value in ("auto", "off"):
        return str(value)
    if value is False:  # YAML reads a bare `off` as false
        return "off"
    return str(integer(value, field, 1, 4294967295))


def _hook_lines(value: object, field: str) -> Tuple[str, ...]:
    lines = [value] if isinstance(value, str) else _list(value, field)
    for index, line in enumerate(lines):
        if not isinstance(line, str) or _HOOK.fullmatch(line.strip()) is None:
            raise InvalidInput(
                f"{field}[{index}]", "is not one line of text without control characters and without #"
            )
    return tuple(line.strip() for line in lines)


def check_instance(fields: object, field: str) -> Desired:
    """Return one instance out of a mapping of INSTANCE_FIELDS; None and a missing field are the same."""
    if not isinstance(fields, dict):
        raise InvalidInput(field, "is not a mapping")
    _only(fields, INSTANCE_FIELDS, field)
    prefix = f"{field}." if field else ""

    def given(name: str) -> bool:
        return fields.get(name) is not None

    name = check_name(fields.get("name"), f"{prefix}name")
    state = fields.get("state") or "present"
    if state not in STATES:
        raise InvalidInput(f"{prefix}state", f"{shown(state)} is not one of {', '.join(STATES)}")
    config_dir = fields.get("config_dir") or DEFAULT_CONFIG_DIR
    if not isinstance(config_dir, str) or not config_dir.startswith("/") or "\0" in config_dir:
        raise InvalidInput(f"{prefix}config_dir", "is not an absolute path")

    addresses = None
    if given("addresses"):
        addresses = tuple(
            check_interface_address(text, f"{prefix}addresses[{index}]")
            for index, text in enumerate(_list(fields["addresses"], f"{prefix}addresses"))
        )
        if len(set(addresses)) != len(addresses):
            raise InvalidInput(f"{prefix}addresses", "an address is there twice")
    peers = check_peers(fields["peers"], f"{prefix}peers") if given("peers") else None
    table = check_table(fields["table"], f"{prefix}table") if given("table") else None
    hooks = {hook: _hook_lines(fields[hook], f"{prefix}{hook}") for hook in HOOKS if given(hook)}
    return Desired(
        name=name,
        state=state,
        private_key=check_private_key(fields["private_key"], f"{prefix}private_key")
        if given("private_key")
        else None,
        public_key=check_public_key(fields["public_key"], f"{prefix}public_key")
        if given("public_key")
        else None,
        listen_port=integer(fields["listen_port"], f"{prefix}listen_port", 1, 65535)
        if given("listen_port")
        else None,
        addresses=addresses,
        mtu=integer(fields["mtu"], f"{prefix}mtu", 576, 65535) if given("mtu") else None,
        fwmark=integer(fields["fwmark"], f"{prefix}fwmark", 0, 4294967295) if given("fwmark") else None,
        table=table,
        peers=peers,
        purge_peers=boolean(fields["purge_peers"], f"{prefix}purge_peers") if given("purge_peers") else True,
        max_removals=(
            integer(fields["max_removals"], f"{prefix}max_removals", 0, 2**31)
            if given("max_removals")
            else None
        ),
        enabled=boolean(fields["enabled"], f"{prefix}enabled") if given("enabled") else True,
        config_dir=os.path.normpath(config_dir),
        **hooks,
    )
