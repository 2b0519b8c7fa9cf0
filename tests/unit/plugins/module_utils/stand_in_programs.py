"""Programs in a folder of the test's own that stand in for those of a node, and note how they were called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands, systemd


def program(folder: Path, name: str, script: str) -> None:
    """Put a program into a folder; `script` is shell."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class StandIns:
    """The only programs that are found; of the shell, hooks get the real one."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self._calls = root, root / "bin", root / "calls"
        self.folder.mkdir()
        (self.folder / "sh").symlink_to("/bin/sh")

    def program(self, name: str, script: str = "") -> None:
        """Put a program there; `script` is shell, without other programs than those in /bin by their full path."""
        program(self.folder, name, f'echo "{name} $*" >> {self._calls}\n{script}')

    def prints(self, name: str, answers: dict[str, str]) -> None:
        """Put a program there that prints what belongs to its arguments, and fails where nothing does."""
        cases = []
        for number, (arguments, text) in enumerate(answers.items()):
            answer = self.root / f"{name}-{number}"
            answer.write_text(text)
            cases.append(f'"{arguments}") exec /bin/cat {answer};;')
        self.program(name, 'case "$*" in\n' + "\n".join(cases) + "\n*) echo unexpected >&2; exit 64;;\nesac")

    def calls(self) -> list[str]:
        """How they were called since this was asked last."""
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return found

    def with_systemd(self, monkeypatch: pytest.MonkeyPatch, script: str = "") -> None:
        """Let systemd be PID 1 of the node, and its programs answer by `script`."""
        for name in ("FOR_GOOD", "RUNTIME"):
            folder = self.root / name
            folder.mkdir()
            monkeypatch.setattr(systemd, name, str(folder))
        self.program("systemctl", script)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """A node on which there is no program yet."""
    made = StandIns(tmp_path)
    monkeypatch.setattr(commands, "SEARCH_PATH", str(made.folder))
    return made
