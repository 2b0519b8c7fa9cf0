"""Several secrets at once, read again when the file changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.secret_file import (
    BadSecrets,
    SecretFile,
    read_secrets,
)

OLD, NEW = "o" * 32, "n" * 32


def write(path: Path, text: str, mode: int = 0o600) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", 0o600),
        ("\n\n", 0o600),
        ("short\n", 0o600),
        (f"{OLD}\nshort\n", 0o600),
        ("é" * 40, 0o600),
        (f"{OLD}\n" * 9, 0o600),
        ("x" * 1025, 0o600),
        (OLD, 0o640),
        (OLD, 0o604),
    ],
)
def test_what_is_no_file_of_secrets_is_refused_without_a_word_of_it(
    tmp_path: Path, text: str, mode: int
) -> None:
    path = tmp_path / "secrets"
    write(path, text, mode)
    with pytest.raises(BadSecrets) as caught:
        read_secrets(str(path))
    assert "secrets" in str(caught.value)
    for secret in text.split():
        assert secret not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSecrets, match="No such file"):
        read_secrets(str(tmp_path / "none"))


def test_what_is_no_regular_file_is_refused_and_waited_for_by_nobody(tmp_path: Path) -> None:
    write(tmp_path / "secrets", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "secrets")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(BadSecrets, match=r"link is a symbolic link, and must be the file itself$"):
        read_secrets(str(tmp_path / "link"))
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(BadSecrets, match=f"^{path} is not a regular file$"):
            read_secrets(str(path))


def test_a_file_that_belongs_to_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secrets"
    write(path, OLD)
    owner = os.geteuid()
    if owner == 0:
        owner = 12345
        os.chown(path, owner, -1)
    else:  # only root gives files away: here it is the agent that is somebody else
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(
        BadSecrets, match=rf"belongs to neither root nor the agent's user \(user {owner} has it\)$"
    ):
        read_secrets(str(path))


def test_a_change_is_seen_and_one_that_is_broken_changes_nothing(tmp_path: Path) -> None:
    path, told = tmp_path / "secrets", list[str]()
    write(path, f"{OLD}\n")
    secrets = SecretFile(str(path), told.append)
    assert secrets.current() == (OLD,)
    write(path, f"{NEW}\n\n{OLD}\n")
    assert secrets.current() == (NEW, OLD)
    write(path, "broken\n")
    assert secrets.current() == (NEW, OLD)
    path.unlink()
    assert secrets.current() == (NEW, OLD)
    assert any("stay valid" in text for text in told)
    assert not any(OLD in text or NEW in text or "broken" in text for text in told)
    write(path, NEW)
    assert secrets.current() == (NEW,)


def test_a_reload_reads_what_looks_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    write(path, OLD)
    before = path.stat()
    secrets = SecretFile(str(path), lambda _text: None)
    with path.open("r+") as file:
        file.write(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    secrets.reload()
    assert secrets.current() == (NEW,)
