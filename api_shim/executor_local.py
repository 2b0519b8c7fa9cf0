"""Runs playbooks on this machine, by ansible-runner. The playbook server does the work; it is started here."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ansible_runner

from api_shim.executor import Ended, Progress, Run, Tell
from api_shim.settings import Settings

_PREFIX = "vpnfleet-runs-"
_START_SECONDS = 60.0
_POLL = 0.2
_YOUNG = 60.0  # seconds
#: Ended is what ansible-runner calls it; `timeout` is the one that the port does not have.
_STATUSES = ("successful", "failed", "canceled", "error")
_CHECKOUT = Path(__file__).resolve().parent.parent


class LocalExecutor:
    """ansible-runner on this machine.

    All that a run needs is in a directory that only this user can read, and gone when it has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starting = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        _remove_abandoned()
        self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._held = os.open(self._directory, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._write_program()

    @property
    def _socket(self) -> Path:
        return self._directory / "socket"

    def start(self) -> None:
        """Start the playbook server, so that the first run need not wait for it. Raises OSError."""
        with self._starting:
            if self._server is not None and self._server.poll() is None:
                return
            self._socket.unlink(missing_ok=True)
            server = subprocess.Popen(
                [sys.executable, "-m", "api_shim.playbook_server", str(self._socket)],
                cwd=_CHECKOUT,
                env=self._server_environment(),
                stdin=subprocess.PIPE,  # it ends when this is closed, as it is when this process dies
                stdout=subprocess.PIPE,
            )
            if not _is_ready(server):
                server.kill()
                server.wait()
                raise OSError("the process that runs playbooks does not start; its output is above")
            self._server = server

    def execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:
        """Run a playbook to its end; as the port says."""
        try:
            with self._connected() as connection:
                _send(connection, {"what": "run", "settings": self._order(run)})
                return self._follow(connection, tell, cancelled)
        except (OSError, ValueError) as error:
            return Ended("error", message=f"ansible-runner cannot be used: {error}")

    def close(self) -> None:
        """End the playbook server."""
        with self._starting:
            if self._server is not None:
                # Closes its standard input, which is for it to end.
                self._server.communicate()
                self._server = None
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._held)

    def _connected(self) -> socket.socket:
        for attempt in (1, 2):
            self.start()
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self._socket))
            except OSError:
                connection.close()
                if attempt == 2:
                    raise
            else:
                return connection
        raise AssertionError("not reached")

    def _order(self, run: Run) -> dict[str, Any]:
        settings = self._settings
        return {
            "directory": str(self._directory),
            "project": str(settings.project),
            "playbook": str(settings.project / "playbooks" / f"{run.playbook}.yml"),
            "inventory": str(settings.inventory_path),
            "variables": {"operations": list(run.operations)},
            "check": run.check,
            "timeout": settings.run_timeout,
            "environment": {
                "PATH": f"{self._directory}:{os.environ.get('PATH', os.defpath)}",
                "ANSIBLE_CONFIG": str(settings.project / "ansible.cfg"),
                # ansible-runner switches it off otherwise.
                "ANSIBLE_HOST_KEY_CHECKING": "True",
            },
        }

    def _follow(self, connection: socket.socket, tell: Tell, cancelled: threading.Event) -> Ended:
        asked_to_end = False
        ended: Ended | None = None
        for line in _lines(connection):
            if cancelled.is_set() and not asked_to_end:
                connection.shutdown(socket.SHUT_WR)
                asked_to_end = True
            if line is None:
                continue
            message = json.loads(line)
            if "ended" in message:
                # Until the other end is closed: its process is not gone before.
                ended = self._ended(message)
                continue
            tell(Progress(message["step"], message["task"], message["node"]))
        return ended or Ended("error", message="the process that ran the playbook has died")

    def _ended(self, message: dict[str, Any]) -> Ended:
        status = message["ended"]
        if status in _STATUSES:
            return Ended(status, message["published"])
        return Ended("error", message["published"], f"it took longer than {self._settings.run_timeout:.0f} s")

    def _server_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(_CHECKOUT), str(_CHECKOUT / "collections"))),
            "VPNFLEET_LEASE_SECONDS": str(int(self._settings.lease_seconds)),
            "VPNFLEET_CHECKS_KEPT": str(self._settings.checks_kept),
            # Ansible reads its configuration when it is imported: all of a run's that is not the same each time is
            # in its command line. The callback is how ansible-runner gets its events.
            "ANSIBLE_CONFIG": str(self._settings.project / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(
                Path(ansible_runner.__file__).with_name("display_callback") / "callback"
            ),
            "ANSIBLE_STDOUT_CALLBACK": "awx_display",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_NOCOLOR": "1",
        }

    def _write_program(self) -> None:
        """What ansible-runner finds as `ansible-playbook`."""
        client = Path(__file__).with_name("ansible_playbook.py")
        words = [sys.executable, "-IS", str(client), str(self._socket)]
        program = self._directory / "ansible-playbook"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        program.chmod(0o700)


def _is_ready(server: subprocess.Popen[bytes]) -> bool:
    """Whether it says so in time."""
    output = server.stdout
    return output is not None and bool(
        select.select([output], [], [], _START_SECONDS)[0] and output.readline()
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    connection.sendall(b"%d\n" % len(data) + data)


def _lines(connection: socket.socket) -> Iterator[bytes | None]:
    """The lines that come, and None every now and then while none comes."""
    rest = b""
    while True:
        if not select.select([connection], [], [], _POLL)[0]:
            yield None
            continue
        data = connection.recv(65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _remove_abandoned() -> None:
    """Directories of servers that were killed: nobody holds them any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            if time.time() - found.st_mtime < _YOUNG:
                continue  # whoever makes it may be about to hold it
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(held)
