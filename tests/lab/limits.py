"""The machine's limit that many hosts meet: each wireguard-go watches its socket by one inotify instance, and root
has 128 of them on all hosts together unless told otherwise.

The limit is raised while anyone needs it and put back when the last one is done.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.lock import exclusive

_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_NEEDED = 8192

#: One empty file for each holder, and `before` with the value that was there.
_HOLDERS = Path("/run/vpnfleet-limits")
_BEFORE = _HOLDERS / "before"


def hold(name: str) -> None:
    """Raise the limit for `name`, until release(name). Twice is no error."""
    with exclusive("limits"):
        _HOLDERS.mkdir(mode=0o700, exist_ok=True)
        (_HOLDERS / f"held-{name}").touch()
        now = int(_LIMIT.read_text(encoding="ascii"))
        if now < _NEEDED:
            _BEFORE.write_text(str(now), encoding="ascii")
            _LIMIT.write_text(str(_NEEDED), encoding="ascii")


def release(name: str) -> None:
    """`name` needs it no more. Without hold() before it is no error."""
    with exclusive("limits"):
        (_HOLDERS / f"held-{name}").unlink(missing_ok=True)
        if not _HOLDERS.is_dir() or any(_HOLDERS.glob("held-*")):
            return
        if _BEFORE.exists():
            _LIMIT.write_text(_BEFORE.read_text(encoding="ascii"), encoding="ascii")
            _BEFORE.unlink()
        _HOLDERS.rmdir()
