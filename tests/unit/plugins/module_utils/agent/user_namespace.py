"""Processes that give up their rights, in user namespaces of their own.

The user that such a process becomes is, seen from outside, the one who runs the tests: so it can still write what is
measured of it. Where the tests are not run by root, it is that user to begin with.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_NOBODY = pwd.getpwnam("nobody")
BY_ROOT = os.geteuid() == 0
#: Whom a process can become.
USER = "nobody" if BY_ROOT else pwd.getpwuid(os.geteuid()).pw_name


def forked(work: Callable[[], int], closes: Iterable[int], stdin: int = -1, stderr: int = -1) -> int:
    """The number of a new process that ends with what `work` returns. It closes the descriptors that only the test is
    to hold, and has the others in their places."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        for descriptor in closes:
            os.close(descriptor)
        if stdin >= 0:
            os.dup2(stdin, 0)
        # Pytest's own is no file.
        sys.stderr = os.fdopen(2 if stderr < 0 else stderr, "w", closefd=False)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """Wait for its end; returns its exit code, or the signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def forked_as_root(
    work: Callable[[], int], closes: Iterable[int] = (), stdin: int = -1, stderr: int = -1
) -> int:
    """As forked, by one who is root in a namespace where USER is the one who runs the tests; without a namespace where
    those are not run by root."""
    if not BY_ROOT:
        return forked(work, closes, stdin, stderr)
    ours, theirs = socket.socketpair()

    def inside() -> int:
        _unshare()
        theirs.send(b"?")
        theirs.recv(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        return work()

    process = forked(inside, [ours.fileno(), *closes], stdin, stderr)
    theirs.close()
    with ours:
        if ours.recv(1):  # root in there is some other user out here
            for name, nobody in (("uid_map", _NOBODY.pw_uid), ("gid_map", _NOBODY.pw_gid)):
                Path(f"/proc/{process}/{name}").write_text(f"0 1 1\n{nobody} 0 1\n")
            ours.send(b"!")
    return process


def become(number: int) -> None:
    """Be the user of this number, with all capabilities, in a namespace that has no other user."""
    user, group = os.geteuid(), os.getegid()
    _unshare()
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{number} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{number} {group} 1")


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
