# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with the registry. The messages are for the user; none holds a secret."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of all that the registry raises on purpose. `code` is what it is in HTTP."""

    code = 500


class Invalid(RegistryError):
    """An input that cannot be; `field` names it."""

    code = 400

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


class NotFound(RegistryError):
    """There is nothing of this name."""

    code = 404


class Conflict(RegistryError):
    """What is asked contradicts what is there."""

    code = 409


class Busy(Conflict):
    """Another run is at work on the same instance."""


class NodeBusy(Busy):
    """A reconcile is at work on the instance's node; it does not take long."""


class Full(RegistryError):
    """A pool, a node or the whole fleet has no room left."""

    code = 409


class NotUsable(RegistryError):
    """The registry itself cannot be used: not reachable, no schema, the wrong key."""


class NoSchema(NotUsable):
    """The registry has no schema yet, or that of another version."""
