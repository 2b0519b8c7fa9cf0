"""What is told is one line each, and a journal that takes nothing more stops nothing."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell


def test_one_line_that_is_not_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\nb\x1b[1m" + "ü" * 2000)
    assert capsys.readouterr().err == "a?b?[1m" + "ü" * 993 + "\n"


def test_a_journal_that_is_full_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = False
    with (
        suppress(OSError),
        Path("/dev/full").open("w", encoding="utf-8") as full,
    ):  # closing it tries once more
        monkeypatch.setattr(sys, "stderr", full)
        tell("nobody reads this")
        went_on = True
    assert went_on
