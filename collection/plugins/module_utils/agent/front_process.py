# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front as its parent sees it: started with what it needs as open descriptors, served by a thread, asked to end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Callable, List, Optional, cast

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.back import Back
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import SEARCH_PATH

# A program of its own, not a fork: what the parent has in its memory, the front has not.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front import main
sys.exit(main(sys.argv[2:]))
"""
# The folder that holds ansible_collections.
_ROOT = os.path.abspath(__file__).split("/ansible_collections/vpnfleet/", 1)[0]


class FrontProcess:
    """One front. Its end and its being ready are told through the functions given."""

    def __init__(
        self, listener: socket.socket, user: str, certificate: Optional[str], key: Optional[str]
    ) -> None:
        """Start it. Raises OSError when a file cannot be read or the process not be made."""
        self.ready = False
        self._draining = False
        # When it must be ready or, once it is asked to end, gone (time.monotonic); None: no such time.
        self.deadline: Optional[float] = time.monotonic() + limits.START_SECONDS
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        opened: List[int] = []
        try:
            for path in (certificate, key):
                opened.append(-1 if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            descriptors = [listener.fileno(), theirs.fileno(), *opened]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, _ROOT, user, *map(str, descriptors)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[number for number in descriptors if number >= 0],
                env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
                cwd="/",
            )
        finally:
            theirs.close()
            for number in opened:
                if number >= 0:
                    os.close(number)

    def serve(
        self, back: Back, ready: Callable[[FrontProcess], None], ended: Callable[[FrontProcess], None]
    ) -> None:
        """Serve it in a thread of its own. Whatever goes wrong there, its end is told. Raises RuntimeError when there
        can be no such thread."""

        def work() -> None:
            try:
                back.serve(lambda: ready(self))
            finally:
                try:
                    self._end()
                finally:
                    ended(self)

        threading.Thread(target=work, daemon=True).start()

    def take_over(self) -> None:
        """It is ready."""
        self.ready = True
        if not self._draining:
            self.deadline = None

    def drain(self) -> None:
        """Have it take no more requests, and end when those that it has are answered."""
        if not self._draining:
            self._draining = True
            self.deadline = time.monotonic() + limits.END_SECONDS
        self._say_no_more()

    def kill(self) -> None:
        """End it, whatever it does; where the right to do so is missing, no word of it counts any more."""
        self.deadline = None
        try:
            self._process.kill()
        except OSError as error:
            tell(f"the front cannot be killed: {error.strerror}")
        try:
            self.channel.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended

    def _say_no_more(self) -> None:
        cast(IO[bytes], self._process.stdin).close()  # it was made with one

    def _end(self) -> None:
        """Nobody serves it any more. A front in its right mind knows, and ends; it is not taken at its word."""
        try:
            self._say_no_more()
            if not self._gone():
                tell("the front does not end, and is killed")
        finally:
            if self._process.poll() is None:
                self.kill()
                self._gone()

    def _gone(self) -> bool:
        try:
            self._process.wait(limits.GONE_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True
