# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code of the agent as one archive, which is the same, byte for byte, as long as the code is.

release.py digest COLLECTION    12 hexadecimal digits, by which the release is known
release.py archive COLLECTION   the archive, in base64; as its last member, RELEASE says that all of it is there
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

_CODE = "plugins/module_utils"
_BELOW = "ansible_collections/vpnfleet/wireguard"


def main(argv: Sequence[str]) -> int:
    """Print what is asked for."""
    what, collection = argv
    members = read(Path(collection))
    name = digest(members)
    print(name if what == "digest" else base64.b64encode(archive(members, name)).decode("ascii"))
    return 0


def read(collection: Path) -> list[tuple[str, bytes]]:
    """Name and content of each file of the release, in order. Raises OSError."""
    paths = [*(collection / _CODE).rglob("*.py"), collection / "LICENSE"]
    return [(str(path.relative_to(collection)), path.read_bytes()) for path in sorted(paths)]


def digest(members: Sequence[tuple[str, bytes]]) -> str:
    """By what a release is known."""
    return hashlib.sha256(repr(members).encode()).hexdigest()[:12]


def archive(members: Sequence[tuple[str, bytes]], name: str) -> bytes:
    """The release as tar.gz."""
    file = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, data in [*members, ("RELEASE", f"{name}\n".encode())]:
            member = tarfile.TarInfo(f"{_BELOW}/{path}" if path != "RELEASE" else path)
            member.uname = member.gname = "root"
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
