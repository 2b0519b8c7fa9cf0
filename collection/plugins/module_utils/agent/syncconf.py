# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``POST /v1/wg/{interface}/syncconf``: an interface's peers brought to what a configuration says, all or nothing.

`wg syncconf` itself is used by none of it: see the guards in plan and converge.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import replace
from typing import Optional, Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer, error
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.memory import (
    Remembered,
    recall,
    remember,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import (
    Known,
    PeerConfig,
    parse_known,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.requests import fields_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.at_once import read_at_once
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import converge
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    Desired,
    check_name,
    integer,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    InvalidInput,
    Refused,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import scrub, secrets_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState

LINKS = "/sys/class/net"  # a folder of each interface's
DONE = {"status": "success", "message": "Configuration synchronized successfully"}


class NoInterface(Refused):
    """There is no WireGuard interface of this name."""


def syncconf(interface: str, body: Union[bytes, bytearray]) -> Answer:
    """The answer to a syncconf of `interface`."""
    try:
        check_name(interface, "interface")
        # Asked before anything else, so that a name leaves no lock behind.
        if not os.path.exists(os.path.join(LINKS, interface)):
            raise NoInterface(f"there is no interface {interface} on this node")
    except (InvalidInput, NoInterface) as problem:
        return _failed(404, str(problem))
    try:
        fields = fields_of(body, ("config", "max_removals"))
        removals = fields.get("max_removals")
        if removals is not None:
            removals = integer(removals, "max_removals", 0, 2**31)
        if not isinstance(fields.get("config"), str):
            raise InvalidInput("config", "is needed, a text in base64")
        return _bring(interface, fields["config"], removals)
    except InvalidInput as problem:
        return _failed(400, str(problem))
    except (WireGuardError, OSError) as problem:
        return _failed(500, str(problem))


def _failed(status: int, problem: str) -> Answer:
    return error(status, f"Failed to synchronize configuration: {problem}")


def _decoded(value: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("config", "is not base64") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("config", "is not text in UTF-8") from None


class _Asked:
    """The configuration as it was sent, and once it has been looked at, what it says."""

    def __init__(self, encoded: str, known: Known) -> None:
        self._encoded = encoded
        self._config: Optional[PeerConfig] = None
        self.known = known

    def look(self) -> PeerConfig:
        """What it says; looked at the first time only. Raises InvalidInput."""
        if self._config is None:
            self._config, self.known = parse_known(_decoded(self._encoded), self.known)
        return self._config


def _bring(interface: str, encoded: str, max_removals: Optional[int]) -> Answer:
    before = recall(interface)
    asked = _Asked(encoded, before.config)
    outcome = converge(
        [Desired(interface, max_removals=max_removals, enabled=None)],
        edit=lambda desired, actual: _edit(desired, actual, asked),
        # What is asked for is looked at while the node is read.
        read=lambda names: read_at_once(names, asked.look),
        known={interface: before.state} if before.state else None,
    )[0]
    if outcome.error is None:
        remember(interface, Remembered(outcome.wanted, asked.known))
        return Answer(200, DONE)
    if isinstance(outcome.cause, NoInterface):
        status = 404
    elif isinstance(outcome.cause, (InvalidInput, Refused)):
        status = 400
    else:
        status = 500
    return _failed(status, scrub(outcome.error, secrets_of([outcome.before, outcome.wanted])))


def _edit(desired: Desired, actual: InterfaceState, asked: _Asked) -> Desired:
    device = actual.device
    if device is None:
        raise NoInterface(f"there is no WireGuard interface {desired.name} on this node")
    config = asked.look()
    for name, said, runs in (
        ("PrivateKey", config.private_key, device.private_key),
        ("ListenPort", config.listen_port, device.listen_port),
        ("FwMark", config.fwmark, device.fwmark),
    ):
        if said is not None and said != runs:
            raise Refused(
                f"{name} in the configuration is not that of the running interface, which stays as it is"
            )
    if actual.file is not None and actual.config is None:
        # Written anew it would be without the hooks and the table that stand in it, and only peers were asked for.
        raise Refused(f"{desired.config_path} cannot be understood ({actual.broken}): repair or remove it")
    # Of an answer cut short, too few would count as removed: converge makes sure where the file does not bear it out.
    return replace(desired, peers=config.peers)
