"""Lets a playbook wait at the beginning of a play, for tests that do something to it just there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: wait_at_play
type: aggregate
short_description: Wait at the beginning of a play
description:
  - E(WAIT_AT_PLAY) holds the play's number and a path. The file PATH.waiting is made, then PATH.go is waited for.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Waits once. Callbacks are called by the process that runs the playbook, so that nothing else goes on."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "wait_at_play"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        number, _, path = os.environ["WAIT_AT_PLAY"].partition(" ")
        self._left = int(number)
        self._path = path

    def v2_playbook_on_play_start(self, play: Any) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0:
            Path(f"{self._path}.waiting").touch()
            while not Path(f"{self._path}.go").exists():
                time.sleep(0.02)
