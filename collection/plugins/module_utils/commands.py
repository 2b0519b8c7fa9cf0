# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the node's programs: no shell, no secret in argv, nothing inherited that could hang or leak."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import Iterator, Optional, Sequence, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    CommandFailed,
    WireGuardError,
    shown,
)

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT = 300  # seconds; a wg that answers later than this hangs
READING = 30  # seconds for what only reads: nothing is half done when it is given up

_HINTS = {
    "wg": "install wireguard-tools (the role vpnfleet.wireguard.node does it)",
    "ip": "install iproute2 (the role vpnfleet.wireguard.node does it)",
}


def find(program: str) -> Optional[str]:
    """The full path of `program`, or None."""
    return shutil.which(program, path=SEARCH_PATH)


def require(program: str) -> str:
    """The full path of `program`, or a WireGuardError that says what to install."""
    path = find(program)
    if path is None:
        raise missing(program)
    return path


def missing(program: str) -> WireGuardError:
    """The error that says so, and what to install."""
    return WireGuardError(f"{program} is not on this node: {_HINTS.get(program, 'install it')}")


def environment() -> dict[str, str]:
    """What the node's programs see: a fixed path and language, and one try for a name instead of 72 s of them."""
    return {"PATH": SEARCH_PATH, "LC_ALL": "C", "WG_ENDPOINT_RESOLUTION_RETRIES": "1"}


@contextmanager
def in_memory(text: str) -> Iterator[Tuple[str, int]]:
    """Put `text` into a file that exists in memory only; yields its path for a child process and its descriptor.

    A pipe would not do: a reader takes its end for the end of the file, so if the writer dies half-way, wg would
    accept a peer list cut short. This file is complete before anyone reads it, and it is never on a disk.
    """
    descriptor = os.memfd_create("wireguard", os.MFD_CLOEXEC)
    try:
        data = text.encode("utf-8")
        while data:
            data = data[os.write(descriptor, data) :]
        yield f"/proc/self/fd/{descriptor}", descriptor
    finally:
        os.close(descriptor)


def run(
    argv: Sequence[str],
    stdin: Optional[str] = None,
    descriptors: Sequence[int] = (),
    check: bool = True,
    extra_environment: Optional[dict[str, str]] = None,
    timeout: Optional[float] = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and wait for it.

    `descriptors` are handed on to it. Raises CommandFailed on a non-zero exit code if `check`, WireGuardError when
    the program is missing or takes longer than `timeout` seconds (TIMEOUT if not given).
    """
    path = require(argv[0])
    seconds = TIMEOUT if timeout is None else timeout
    try:
        result = subprocess.run(
            [path, *argv[1:]],
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            pass_fds=tuple(descriptors),
            env={**environment(), **(extra_environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise WireGuardError(f"{argv[0]} did not end within {seconds} s") from None
    if check and result.returncode != 0:
        raise CommandFailed(" ".join(argv[:3]), result.returncode, result.stderr or result.stdout)
    return result


class Started:
    """A program that runs while its caller does something else. It reads nothing, and what it prints goes into memory,
    so that it never waits for its caller."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start it. Raises WireGuardError when it is missing."""
        self._argv = list(argv)
        path = require(self._argv[0])
        self._files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")]
        try:
            self._process = subprocess.Popen(
                [path, *self._argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=self._files[0],
                stderr=self._files[1],
                env=environment(),
            )
        except BaseException:
            self._close()
            raise

    def result(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end. To be called once. Raises WireGuardError when it takes longer than TIMEOUT."""
        try:
            code = self._process.wait(TIMEOUT)
            stdout, stderr = (
                os.pread(file, os.fstat(file).st_size, 0).decode("utf-8", "replace") for file in self._files
            )
        except subprocess.TimeoutExpired:
            raise WireGuardError(f"{self._argv[0]} did not end within {TIMEOUT} s") from None
        finally:
            self.end()
        return subprocess.CompletedProcess(self._argv, code, stdout, stderr)

    def end(self) -> None:
        """End it if it still runs; nobody wants its result."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def run_hook(command: str, check: bool) -> None:
    """Run an operator's command line by the shell that wg-quick uses.

    It may leave something in the background, so it gets no pipe whose end would be waited for. Raises CommandFailed
    with what it wrote to stderr when it fails and `check` is set.
    """
    shell = require("bash" if find("bash") else "sh")
    descriptor = os.memfd_create("hook", os.MFD_CLOEXEC)
    try:
        result = subprocess.run(
            [shell, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            check=False,
            timeout=TIMEOUT,
            env=environment(),
        )
        if check and result.returncode != 0:
            os.lseek(descriptor, 0, os.SEEK_SET)
            stderr = os.read(descriptor, 2000).decode("utf-8", "replace")
            raise CommandFailed(f"the hook {shown(command)}", result.returncode, stderr)
    except subprocess.TimeoutExpired:
        raise WireGuardError(f"the hook {shown(command)} did not end within {TIMEOUT} s") from None
    finally:
        os.close(descriptor)


def spawn_daemon(argv: Sequence[str]) -> None:
    """Start a program that goes to the background by itself, with none of our descriptors: else the SSH session
    that we run in would wait for its end."""
    path = require(argv[0])
    result = subprocess.run(
        [path, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=TIMEOUT,
        start_new_session=True,
        env=environment(),
    )
    if result.returncode != 0:
        raise CommandFailed(" ".join(argv[:2]), result.returncode, "")
