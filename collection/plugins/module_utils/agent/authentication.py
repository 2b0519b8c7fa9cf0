# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call: whoever signs with one of the node's secrets, now, and for the first time."""

from __future__ import annotations

import time
from typing import Union

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import Replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.secret_file import SecretFile
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.signatures import (
    WINDOW,
    timely,
    verify,
    well_formed,
)


def unauthorized(now: float) -> str:
    """What is told to whoever may not call: always the same, whichever part was wrong. The time is no secret, and an
    operator whose clock is off sees it here."""
    return (
        "Unauthorized: X-Signature is missing, wrong or was used before, or X-Timestamp is more than "
        f"{WINDOW} s off the agent's clock, which says {int(now)}"
    )


class Authentication:
    """Decides by the secrets, the clock and what was accepted before."""

    def __init__(self, secrets: SecretFile, replay: Replay) -> None:
        self._secrets = secrets
        self._replay = replay

    def refusal(
        self, method: str, path: str, body: Union[bytes, bytearray], signature: str, timestamp: str
    ) -> str:
        """Why a request is refused; empty when it may be carried out, and never again the same one.

        Raises CannotRemember."""
        now = time.time()
        if (
            well_formed(signature, path, timestamp)
            and timely(timestamp, now)
            and verify(self._secrets.current(), signature, method, path, body, timestamp)
            and self._replay.accept(signature, timestamp, now)
        ):
            return ""
        return unauthorized(now)
