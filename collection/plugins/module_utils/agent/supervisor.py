# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a whole: what it starts, the signals that it heeds, and its end.

This process is the privileged one. It opens the listening socket, has the front take it over, and carries out the calls
that come back. SIGTERM: no more requests are taken, what is being carried out is finished. SIGHUP: the secrets are read
again, and a new front takes over with the certificate as it is now. Should either process end otherwise, so does the
other one, and systemd starts both anew.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Callable, List, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.authentication import Authentication
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.back import Back
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front_process import FrontProcess
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import CannotRemember, Replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.secret_file import (
    BadSecrets,
    SecretFile,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.socket_activation import inherited


class CannotStart(Exception):
    """The message says what to mend."""


@dataclass(frozen=True)
class Settings:
    """How the agent is started."""

    host: str
    port: int
    secrets: str
    state_dir: str
    user: str
    certificate: Optional[str] = None
    key: Optional[str] = None


class Supervisor:
    """The agent while it runs."""

    def __init__(self, settings: Settings) -> None:
        """Raises CannotStart."""
        self._settings = settings
        # What is to be done next, by the one thread that does anything to the fronts.
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._fronts: List[FrontProcess] = []  # the last one is the one in use, or about to be
        self._stopping = False
        try:
            self._secrets = SecretFile(settings.secrets, tell)
            self._replay = Replay(settings.state_dir)
        except (BadSecrets, CannotRemember) as error:
            raise CannotStart(str(error)) from None
        self._authentication = Authentication(self._secrets, self._replay)
        try:
            self._listener = inherited() or listen(settings.host, settings.port)
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
            ) from None
        self._pool = ThreadPoolExecutor(limits.MOST_CALLS)

    def run(self) -> int:
        """Serve until the end; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._events.put(self._stop))
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._events.put(self._reload))
        dump.remember()
        try:
            self._start_front()
            self._heed_events()
        finally:
            for front in self._fronts:
                front.kill()
        # What is being carried out is finished, whoever asked for it.
        self._pool.shutdown(wait=True)
        self._replay.close()
        return 0 if self._stopping else 1

    def _heed_events(self) -> None:
        """Until there is no front any more."""
        while self._fronts:
            try:
                heed = self._events.get(timeout=self._patience())
            except queue.Empty:
                heed = self._kill_late
            heed()

    def _patience(self) -> Optional[float]:
        """For how many seconds no front is late; None: however long."""
        deadlines = [front.deadline for front in self._fronts if front.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _kill_late(self) -> None:
        for front in self._fronts:
            if front.deadline is not None and front.deadline <= time.monotonic():
                tell(f"the front {'does not end' if front.ready else 'does not get ready'}, and is killed")
                front.kill()

    def _start_front(self) -> None:
        settings = self._settings
        try:
            front = FrontProcess(self._listener, settings.user, settings.certificate, settings.key)
        except OSError as error:
            tell(f"the front cannot be started: {error}")
            return
        self._fronts.append(front)
        front.serve(
            Back(front.channel, self._authentication, self._pool),
            ready=lambda front: self._events.put(partial(self._take_over, front)),
            ended=lambda front: self._events.put(partial(self._ended, front)),
        )

    def _take_over(self, front: FrontProcess) -> None:
        front.take_over()
        for other in self._fronts:
            if other is not front:
                other.drain()
        scheme = "HTTPS" if self._settings.certificate else "plain HTTP"
        tell(f"ready on {self._settings.host} port {self._settings.port}, {scheme}")
        notify_systemd("READY=1")
        if self._stopping:
            front.drain()

    def _ended(self, front: FrontProcess) -> None:
        self._fronts.remove(front)
        if self._stopping or any(other.ready for other in self._fronts):
            return
        tell("the front has ended")
        for other in self._fronts:
            other.drain()

    def _reload(self) -> None:
        self._secrets.reload()
        # One that is still starting has the files as they are now, or nearly; it is not to be overtaken.
        if self._settings.certificate and not self._stopping and all(front.ready for front in self._fronts):
            self._start_front()

    def _stop(self) -> None:
        self._stopping = True
        notify_systemd("STOPPING=1")
        for front in self._fronts:
            front.drain()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except BaseException:
        listener.close()
        raise
    return listener


def notify_systemd(state: str) -> None:
    """Tell systemd, where it has started the agent as a unit of type notify (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode("ascii"), "\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        tell(f"systemd could not be told: {error}")
