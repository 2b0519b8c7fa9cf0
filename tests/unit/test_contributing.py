"""The three changes that CONTRIBUTING.md makes work as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT, copy_checkout

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = {
    heading: body
    for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    if heading.startswith("Add ")
}
#: A file of the example: its path in the prose, right before the block that holds it.
FILES = re.compile(r"`(\S+/\S+)`:\n\n(````?)\w+\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
DIFFS = re.compile(r"^```diff\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONSOLES = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has or would add, which nobody else reads."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def run(argv: list[str], checkout: Path, stdin: str = "") -> str:
    """What a command prints in the copy, however it ends."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(checkout / "var"),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        argv,
        cwd=checkout,
        env=environment,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return f"{done.stdout}\nexit code {done.returncode}"


def test_there_is_an_example_of_each() -> None:
    assert list(SECTIONS) == ["Add a module", "Add a role", "Add an endpoint"]


@pytest.mark.parametrize("section", SECTIONS)
def test_what_the_page_says_is_seen(section: str, checkout: Path) -> None:
    text = SECTIONS[section]
    files = FILES.findall(text)
    assert len(files) >= 2
    for name, _fence, content in files:
        path = checkout / name
        assert not path.exists(), f"{name} is there already: the example needs another name"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for diff in DIFFS.findall(text):
        told = run(["git", "apply", "-"], checkout, stdin=diff)
        assert told.endswith("exit code 0"), told
    for linter, ending in (
        (["ruff", "check"], ".py"),
        (["ruff", "format", "--check"], ".py"),
        (["yamllint", "-s"], ".yml"),
    ):
        names = [name for name, _fence, _content in files if name.endswith(ending)]
        told = run([*linter, *names], checkout) if names else "exit code 0"
        assert told.endswith("exit code 0"), told
    commands = 0
    for console in CONSOLES.findall(text):
        for command, expected in re.findall(r"^\$ (.+)\n((?:(?!\$ ).+\n)*)", console, re.MULTILINE):
            told = " ".join(run(shlex.split(command), checkout).split())
            for line in expected.splitlines():
                assert " ".join(line.split()) in told, f"{command}\n{told}"
            commands += 1
    assert commands
