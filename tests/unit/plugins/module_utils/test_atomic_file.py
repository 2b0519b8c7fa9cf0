from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import atomic_file
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wg0.conf"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_new_file_is_ours_alone_whatever_the_umask(path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        atomic_file.write(str(path), "one\n")
    finally:
        os.umask(old)
    assert path.read_text() == "one\n"
    assert mode(path) == 0o600
    assert atomic_file.is_private(str(path))
    assert names(path.parent) == ["wg0.conf"]


def test_a_folder_that_is_missing_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "wireguard" / "wg0.conf"
    atomic_file.write(str(path), "one\n")
    assert path.read_text() == "one\n"
    assert mode(path.parent) == 0o700


def test_a_file_that_others_could_read_is_closed(path: Path) -> None:
    path.write_text("old")
    path.chmod(0o644)
    assert not atomic_file.is_private(str(path))
    atomic_file.write(str(path), "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_what_a_reader_has_open_stays_whole(path: Path) -> None:
    path.write_text("old")
    with path.open() as reader:
        atomic_file.write(str(path), "new")
        assert reader.read() == "old"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=20))
def test_any_text_comes_back_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, text: str, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    atomic_file.write(str(path), text)
    assert atomic_file.read_text(str(path)) == text
    # A file by hand need not be UTF-8; putting it back must not change a byte.
    path.write_bytes(raw)
    atomic_file.write(str(path), atomic_file.read_text(str(path)) or "")
    assert path.read_bytes() == raw


def test_nothing_there() -> None:
    assert atomic_file.read_text("/nonexistent/wg0.conf") is None
    assert atomic_file.is_private("/nonexistent/wg0.conf")
    atomic_file.remove("/nonexistent/wg0.conf")


def test_a_symlink_is_replaced_and_its_target_left_alone(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    path.symlink_to(elsewhere)
    assert not atomic_file.is_private(str(path))
    atomic_file.write(str(path), "new")
    assert not path.is_symlink()
    assert (path.read_text(), elsewhere.read_text()) == ("new", "precious")
    assert atomic_file.is_private(str(path))


def test_removing_a_symlink_leaves_its_target_alone(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    path.symlink_to(elsewhere)
    atomic_file.remove(str(path))
    assert not path.is_symlink()
    assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize("left", ["file", "symlink", "read-only file"])
def test_what_a_killed_run_left_is_overwritten(path: Path, tmp_path: Path, left: str) -> None:
    leftover = Path(atomic_file.temporary_path(str(path)))
    trap = tmp_path / "trap"
    trap.write_text("untouched")
    if left == "symlink":
        leftover.symlink_to(trap)
    else:
        leftover.write_text("half a f")
        leftover.chmod(0o444)
    atomic_file.write(str(path), "new")
    assert (path.read_text(), mode(path), trap.read_text()) == ("new", 0o600, "untouched")
    assert not leftover.exists()


def test_what_a_killed_run_left_is_removed_with_the_file(path: Path) -> None:
    path.write_text("x")
    Path(atomic_file.temporary_path(str(path))).write_text("secret")
    atomic_file.remove(str(path))
    assert names(path.parent) == []
    atomic_file.remove(str(path))


@pytest.mark.parametrize("make", ["directory at the path", "file for a folder"])
def test_what_cannot_be_written_is_said(tmp_path: Path, make: str) -> None:
    if make == "directory at the path":
        path = tmp_path / "wg0.conf"
        path.mkdir()
        reason = "is a directory"
    else:
        (tmp_path / "etc").write_text("")
        path = tmp_path / "etc" / "wg0.conf"
        reason = "(Not a directory|File exists)"
    with pytest.raises(WireGuardError, match=f"^{path} cannot be written: {reason}$"):
        atomic_file.write(str(path), "x")
    assert [name for name in names(tmp_path) if "vpnfleet-new" in name] == []


def test_what_cannot_be_removed_is_said(path: Path) -> None:
    path.mkdir()
    with pytest.raises(WireGuardError, match=f"^{path} cannot be removed: Is a directory$"):
        atomic_file.remove(str(path))
    assert path.is_dir()


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WireGuardError, match=f"^{tmp_path} cannot be read: Is a directory$"):
        atomic_file.read_text(str(tmp_path))
    assert not atomic_file.is_private(str(tmp_path))


FULL_DISK = """
import resource, signal, sys
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import atomic_file
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    atomic_file.write(sys.argv[1], "x" * 100_000)
except WireGuardError as error:
    print(error)
"""


def test_a_write_that_finds_no_room_leaves_the_old_file(path: Path) -> None:
    """No file may grow over 10 kB in that process: to the writer it is what a full disk is, an OSError from write."""
    path.write_text("old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{path} cannot be written: File too large\n"
    assert path.read_text() == "old"
    assert names(path.parent) == ["wg0.conf"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_whatever_fails_leaves_the_old_file_and_nothing_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path.write_text("old")

    def no_room(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(os, "fdopen", no_room)
    else:
        monkeypatch.setattr(os, call, no_room)
    with pytest.raises(WireGuardError, match=r"cannot be written: No space left on device$"):
        atomic_file.write(str(path), "new")
    assert path.read_text() == "old"
    assert names(path.parent) == ["wg0.conf"]


def test_the_text_is_on_disk_before_it_takes_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*arguments: object, name: str = name, real: Callable[..., object] = real) -> None:
            calls.append(name)
            real(*arguments)

        monkeypatch.setattr(os, name, noted)
    atomic_file.write(str(path), "new")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder
