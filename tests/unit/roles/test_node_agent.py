"""The scripts of the role node_agent, run as it runs them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

from tests.checkout import ROOT

ROLE = ROOT / "collection" / "roles" / "node_agent"
TOLD = "Another run has changed the certificate"


def certificate(directory: Path) -> subprocess.Popen[str]:
    with (ROLE / "files" / "certificate.sh").open(encoding="utf-8") as script:
        return subprocess.Popen(
            ["/bin/sh", "-s", "--", str(directory), "30", "node1.example.com"],
            stdin=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def somebody_waits_for(path: Path) -> bool:
    inode = f":{path.stat().st_ino} "
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and inode in line for line in locks)


def test_a_certificate_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("a")
    told, problem = certificate(tmp_path / "b").communicate(timeout=60)
    assert told == (tmp_path / "b" / "certificate.pem").read_text(encoding="ascii"), problem
    assert (tmp_path / "b" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "current"]


def test_what_another_run_has_taken_into_use_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "key.pem").write_text("in use", encoding="ascii")
    lock = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        late = certificate(tmp_path / "b")
        deadline = time.monotonic() + 30
        while not somebody_waits_for(tmp_path):
            assert late.poll() is None, late.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "current").symlink_to("b")
    finally:
        os.close(lock)
    _told, problem = late.communicate(timeout=60)
    assert late.returncode != 0
    assert TOLD in problem
    assert (tmp_path / "b" / "key.pem").read_text(encoding="ascii") == "in use"
