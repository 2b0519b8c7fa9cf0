# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on a node, each with a message that names the field or the thing."""

from __future__ import annotations

import re


class WireGuardError(Exception):
    """Base of all errors that a module turns into ``fail_json``."""


class InvalidInput(WireGuardError):
    """A parameter is wrong; nothing was read or applied.

    ``field`` is the path of the parameter, for instance ``instances[2].peers[0].public_key``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem

    def within(self, field: str) -> InvalidInput:
        """The same error, seen from outside: `field` is what holds the field that is wrong."""
        return InvalidInput(".".join(part for part in (field, self.field) if part), self.problem)


class Refused(WireGuardError):
    """The request is well formed, but carrying it out would do harm; nothing was applied."""


class CommandFailed(WireGuardError):
    """A command on the node failed. ``stderr`` holds no secret: none is ever passed in argv or printed by wg."""

    def __init__(self, argv0: str, returncode: int, stderr: str) -> None:
        # The end of a long message tells more than its beginning.
        super().__init__(
            f"{argv0} failed with exit code {returncode}: {stderr.strip()[-1000:] or 'no message'}"
        )
        self.returncode = returncode
        self.stderr = stderr


class ApplyFailed(WireGuardError):
    """Applying failed half-way; the message says whether the interface is back to what it was before."""


# A key that was put in the wrong place is a secret all the same.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


def shown(value: object) -> str:
    """`value` as it may stand in a message: quoted, on one line, not longer than 60 characters, and without what
    looks like a key."""
    text = value if isinstance(value, str) else str(value)
    text = repr(_KEY_LIKE.sub("(hidden)", text[:4096]))
    return text if len(text) <= 60 else text[:56] + "...'"
