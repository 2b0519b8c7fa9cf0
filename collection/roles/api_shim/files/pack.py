# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs files of this machine into an archive that is the same, byte for byte, as long as they are.

    pack.py FOLDER ARCHIVE PATH...

PATH is relative to FOLDER, `.` for all of it. Out of a git checkout it takes what git has or would add. The digest of
names, modes and contents goes to stdout and, so that a half-unpacked archive is known for one, into its last member,
RELEASE.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Write the archive, print the digest."""
    folder, archive, *wanted = argv
    print(pack(Path(folder), Path(archive), wanted))
    return 0


def pack(folder: Path, archive: Path, wanted: Sequence[str]) -> str:
    """Write the archive; the digest, as 12 hexadecimal digits. Raises OSError."""
    members = [(name, *_read(folder / name)) for name in sorted(set(_names(folder, wanted)))]
    digest = hashlib.sha256(repr(members).encode()).hexdigest()[:12]
    members.append(("RELEASE", "file", f"{digest}\n".encode()))
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, kind, data in members:
            tar.addfile(_member(name, kind, data), io.BytesIO(data) if kind != "link" else None)
    return digest


def _names(folder: Path, wanted: Sequence[str]) -> Iterator[str]:
    """The files' names, relative to the folder."""
    missing = [path for path in wanted if not os.path.lexists(folder / path)]
    if missing:
        raise SystemExit(f"{folder} has no {', '.join(missing)}")
    if (folder / ".git").exists():
        argv = [
            "git",
            "-C",
            str(folder),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
            *wanted,
        ]
        try:
            listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\0")
        except (OSError, subprocess.CalledProcessError):
            pass  # git is not there, or the checkout is another user's
        else:
            yield from (name for name in listed if name and os.path.lexists(folder / name))
            return
    for path in wanted:
        top = folder / path
        if top.is_symlink() or top.is_file():
            yield os.path.normpath(path)
            continue
        for where, below, files in os.walk(top):
            below[:] = [name for name in below if name != "__pycache__"]
            links = [name for name in below if Path(where, name).is_symlink()]
            yield from (
                str(Path(where, name).relative_to(folder))
                for name in (*files, *links)
                if not name.endswith(".pyc")
            )


def _read(path: Path) -> tuple[str, bytes]:
    """What a file is (link, program or file), and what is in it."""
    if path.is_symlink():
        return "link", os.fsencode(path.readlink())
    return "program" if path.stat().st_mode & 0o100 else "file", path.read_bytes()


def _member(name: str, kind: str, data: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.uname = member.gname = "root"
    if kind == "link":
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.fsdecode(data), 0o777
    else:
        member.size, member.mode = len(data), 0o755 if kind == "program" else 0o644
    return member


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
