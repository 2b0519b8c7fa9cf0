# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second, independent reading of who runs, for when a first that was cut short would do harm.

The answer of ``wg show dump`` has no end mark: cut at the end of a line, it looks like an interface with fewer peers.
Whoever then keeps "those that are there" and writes the rest anew would throw the others out. So before what runs is
changed on the strength of a reading, and before peers are told to be missing, wg is asked once more in another way.
"""

from __future__ import annotations

from typing import Collection, Dict, Mapping, Set

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import count
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import (
    HERE,
    UNREADABLE,
    Printed,
    Source,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device


def require_whole(devices: Mapping[str, Device], source: Source = HERE) -> None:
    """Raise IncompleteDump when ``wg show peers`` names other peers of these interfaces than a dump did.

    One command, whatever their number. When somebody has changed the peers in between, that is refused as well.
    """
    if not devices:
        return
    (first, *others) = devices
    answer = source.peers("all" if others else first)
    check_answered(devices, answer)
    check_whole(devices, peers_of(answer.stdout, None if others else first))


def check_answered(interfaces: Collection[str], answer: Printed) -> None:
    """Raise IncompleteDump when ``wg show peers`` has not told of these interfaces: what it does not print would pass
    for interfaces without peers. Pure.

    Of another one that cannot be read it complains as well, and still tells of these.
    """
    complaints = UNREADABLE.findall(answer.stderr)
    others_only = len(complaints) == len(answer.stderr.strip().splitlines()) > 0
    about = next((name for name, _why in complaints if name in interfaces), None)
    if about is not None or (answer.returncode != 0 and not others_only):
        raise IncompleteDump(
            f"wg show peers did not tell of {about or ', '.join(sorted(interfaces)[:3])} (exit code "
            f"{answer.returncode}): {answer.stderr.strip()[-200:] or 'no message'}"
        )


def peers_of(answer: str, interface: str | None = None) -> Dict[str, Set[str]]:
    """The public keys by interface out of ``wg show all peers``, or of ``wg show <interface> peers``."""
    found: Dict[str, Set[str]] = {}
    for line in answer.splitlines():
        name, _tab, key = line.partition("\t") if interface is None else (interface, "", line)
        found.setdefault(name, set()).add(key)
    return found


def check_whole(devices: Mapping[str, Device], named: Mapping[str, Set[str]]) -> None:
    """Raise IncompleteDump when the peers `named` of these interfaces are not those of a dump. Pure."""
    for name, device in devices.items():
        others = named.get(name, set())
        if others != device.peers.keys():
            raise IncompleteDump(
                f"wg show dump told of {count(len(device.peers), 'peer')} of {name} and wg show peers of "
                f"{count(len(others), 'peer')}, not the same ones: nothing is concluded from that"
            )
