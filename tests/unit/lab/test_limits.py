"""The machine's limit is raised while someone needs it, and put back by the last one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.lab import limits


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "max_user_instances"
    file.write_text("128\n")
    monkeypatch.setattr(limits, "_LIMIT", file)
    monkeypatch.setattr(limits, "_HOLDERS", tmp_path / "holders")
    monkeypatch.setattr(limits, "_BEFORE", tmp_path / "holders" / "before")
    monkeypatch.setattr(limits, "exclusive", lambda _name: contextlib.nullcontext())
    return file


def test_the_last_holder_puts_it_back(limit: Path, tmp_path: Path) -> None:
    limits.hold("a")
    limits.hold("b")
    limits.hold("a")
    assert limit.read_text() == "8192"
    limits.release("a")
    assert limit.read_text() == "8192"
    limits.release("b")
    assert limit.read_text().strip() == "128"
    assert not (tmp_path / "holders").exists()


def test_a_higher_limit_is_left_alone(limit: Path) -> None:
    limit.write_text("65536\n")
    limits.hold("a")
    limits.release("a")
    assert limit.read_text() == "65536\n"


def test_release_without_hold_is_no_error(limit: Path) -> None:
    limits.release("a")
    assert limit.read_text() == "128\n"
