# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where what is read of a node comes from: its own programs and files or, elsewhere, what a probe has printed there."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NamedTuple, Optional, Protocol, Sequence

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import atomic_file, systemd, traces
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import READING, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Unit


class Printed(NamedTuple):
    """What a program has printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class File(NamedTuple):
    """A config file. Of a long one, a source may give a digest in the place of what comes after the first line that
    says ``[Peer]``; that line and all before it are the `text` then."""

    text: str
    private: bool  # a regular file of ours that nobody else may read
    peers_digest: Optional[str] = None  # SHA-256 in hexadecimal, from that line on


class Source(Protocol):
    """What the readings are made of. Each method raises WireGuardError when it cannot be had."""

    def addresses(self) -> str:
        """What ``ip -json -details address show`` prints."""

    def routes(self, family: str) -> str:
        """What ``ip -json route show`` prints of all unicast routes; `family` is -4 or -6."""

    def dump(self, interface: str) -> Printed:
        """What ``wg show <interface> dump`` does, "all" for all interfaces; failing is no error here."""

    def peers(self, interface: str) -> Printed:
        """What ``wg show <interface> peers`` does, "all" for all interfaces; failing is no error here."""

    def has_socket(self, interface: str) -> bool:
        """Whether wireguard-go serves an interface of this name."""

    def file(self, path: str) -> Optional[File]:
        """A config file; None when there is none."""

    def units(self, interfaces: Sequence[str], config_dir: str) -> Dict[str, Optional[Unit]]:
        """The unit of each interface; None where units have no part."""

    def traces(self, config_dir: str) -> Dict[str, str]:
        """What there is of interfaces besides themselves, as `traces` tells it."""


#: How wg complains of one interface: its name, and why.
UNREADABLE = re.compile(r"^Unable to access interface ([^\s:]+):? ?(.*)$", re.MULTILINE)

ADDRESSES = ("ip", "-json", "-details", "address", "show")


def routes_command(family: str) -> List[str]:
    """What prints the routes of a family, -4 or -6."""
    return ["ip", family, "-json", "route", "show", "table", "all", "type", "unicast"]


class ThisNode:
    """The node that this runs on."""

    def addresses(self) -> str:
        """As Source says."""
        return run(ADDRESSES, timeout=READING).stdout

    def routes(self, family: str) -> str:
        """As Source says."""
        return run(routes_command(family), timeout=READING).stdout

    def dump(self, interface: str) -> Printed:
        """As Source says."""
        result = run(["wg", "show", interface, "dump"], check=False, timeout=READING)
        return Printed(result.returncode, result.stdout, result.stderr)

    def peers(self, interface: str) -> Printed:
        """As Source says."""
        result = run(["wg", "show", interface, "peers"], check=False, timeout=READING)
        return Printed(result.returncode, result.stdout, result.stderr)

    def has_socket(self, interface: str) -> bool:
        """As Source says."""
        return os.path.exists(f"/run/wireguard/{interface}.sock")

    def file(self, path: str) -> Optional[File]:
        """As Source says."""
        text = atomic_file.read_text(path)
        return None if text is None else File(text, atomic_file.is_private(path))

    def units(self, interfaces: Sequence[str], config_dir: str) -> Dict[str, Optional[Unit]]:
        """As Source says."""
        return systemd.read_units(list(interfaces), config_dir)

    def traces(self, config_dir: str) -> Dict[str, str]:
        """As Source says."""
        return traces.traces(config_dir)


HERE = ThisNode()
