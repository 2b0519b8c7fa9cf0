# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node read by all commands at once, which run while the reader still does something else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import Started
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import ONE_BY_ONE, Node, read_node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import (
    ADDRESSES,
    Printed,
    ThisNode,
    routes_command,
)


class AtOnce(ThisNode):
    """This node, with its programs started already."""

    def __init__(self, started: Dict[Tuple[str, ...], Started]) -> None:
        self._started = started

    def addresses(self) -> str:
        """As Source says."""
        return self._text(ADDRESSES)

    def routes(self, family: str) -> str:
        """As Source says."""
        return self._text(routes_command(family))

    def dump(self, interface: str) -> Printed:
        """As Source says."""
        result = self._started.pop(_dump(interface)).result()
        return Printed(result.returncode, result.stdout, result.stderr)

    def _text(self, argv: Sequence[str]) -> str:
        result = self._started.pop(tuple(argv)).result()
        if result.returncode != 0:
            raise CommandFailed(" ".join(argv[:3]), result.returncode, result.stderr or result.stdout)
        return result.stdout


def _dump(interface: str) -> Tuple[str, ...]:
    return "wg", "show", interface, "dump"


@contextmanager
def _started(commands: List[Tuple[str, ...]]) -> Iterator[Dict[Tuple[str, ...], Started]]:
    running: Dict[Tuple[str, ...], Started] = {}
    try:
        for argv in commands:
            running[argv] = Started(argv)
        yield running
    finally:
        for started in running.values():
            started.end()


def read_at_once(interfaces: List[str], meanwhile: Callable[[], object] = lambda: None) -> Node:
    """As read_node of a few interfaces. `meanwhile` is called when the commands run; what it raises ends them."""
    if len(interfaces) > ONE_BY_ONE:
        meanwhile()
        return read_node(interfaces)
    commands = [_dump(name) for name in interfaces]
    commands += [tuple(ADDRESSES), *(tuple(routes_command(family)) for family in ("-4", "-6"))]
    with _started(commands) as running:
        meanwhile()
        return read_node(interfaces, AtOnce(running))
