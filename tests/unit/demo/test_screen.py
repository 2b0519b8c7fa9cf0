"""What the demo prints, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from tests.demo.screen import Screen


class Stream(io.StringIO):
    """A stream that says of itself whether it is a terminal."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    def isatty(self) -> bool:
        return self._terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def told(stream: Stream) -> str:
    """What the screen writes for one step that passes and one that fails."""
    screen = Screen(stream)
    screen.begin("First")
    screen.note("half-way")
    screen.end(True, "5/5", 0.25)
    screen.begin("Second")
    screen.end(False, "4/5\nsee a.log", 1.0)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_elsewhere_a_step_is_one_plain_line() -> None:
    assert told(Stream(terminal=False)).splitlines() == [
        f"  {'First':<36} ✓ 5/5 (0.2 s)",
        f"  {'Second':<36} ✗ 4/5 (1.0 s)",
        "    see a.log",
    ]


def test_a_stream_without_ticks_gets_words() -> None:
    text = told(Stream(terminal=False, encoding="ascii"))

    assert " ok 5/5" in text
    assert " FAILED 4/5" in text
    assert text.isascii()


def test_a_terminal_shows_what_is_going_on_and_colours() -> None:
    text = told(Stream(terminal=True))

    assert "half-way" in text
    assert "\x1b[32m✓\x1b[0m 5/5" in text
    assert "\x1b[31m✗\x1b[0m 4/5" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    text = told(Stream(terminal=True))

    assert "half-way" in text
    assert "\x1b[3" not in text
    assert "\x1b[2m" not in text


def test_a_dumb_terminal_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    assert told(Stream(terminal=True)) == told(Stream(terminal=False))
