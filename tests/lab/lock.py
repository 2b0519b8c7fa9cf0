"""One at a time: a lock between processes that leaves no file behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Taken(Exception):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def exclusive(name: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this name; wait for whoever holds it, or raise Taken. The end of the process releases it too."""
    path = Path("/run") / f"vpnfleet-{name}.lock"
    descriptor = _acquire(path, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, wait: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                # The former holder removed the file it held; a lock on a file without a name binds nobody.
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Taken(str(path)) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
