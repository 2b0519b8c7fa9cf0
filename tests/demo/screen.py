"""What the demo prints: one line per step, begun when the step begins and finished when it ends.

On a terminal the line shows meanwhile what is going on; elsewhere nothing is ever written over.
"""

from __future__ import annotations

import os
import shutil
from typing import TextIO

_NAME_WIDTH = 36
_GREEN, _RED, _DIM = "32", "31", "2"


class Screen:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        # https://no-color.org: present and not empty.
        self._coloured = self._terminal and not os.environ.get("NO_COLOR")
        self._name: str | None = None
        try:
            "✓✗…".encode(stream.encoding or "ascii")
            self._tick, self._cross, self._dots = "✓", "✗", "…"
        except UnicodeEncodeError:
            self._tick, self._cross, self._dots = "ok", "FAILED", "..."

    def say(self, text: str) -> None:
        """A line of its own, between steps."""
        self._write(text + "\n")

    def begin(self, name: str) -> None:
        """Say what is being done, before it is."""
        self._name = name
        self._write(f"  {name:<{_NAME_WIDTH}} ")
        self.note(self._dots)

    def note(self, text: str) -> None:
        """What is going on in the step that has begun; shown on a terminal only, and until the next note."""
        if self._terminal and self._name is not None:
            room = shutil.get_terminal_size().columns - _NAME_WIDTH - 4
            self._write(f"{self._line_start()}{self._colour(text[: max(room, 0)], _DIM)}")

    def end(self, ok: bool, detail: str, seconds: float) -> None:
        """How the step ended. Further lines of `detail` go below its line."""
        mark = self._colour(self._tick, _GREEN) if ok else self._colour(self._cross, _RED)
        first, *others = detail.splitlines() or [""]
        took = self._colour(f"({seconds:.1f} s)", _DIM)
        start = self._line_start() if self._terminal else ""
        self._write(f"{start}{mark} {first} {took}\n")
        for line in others:
            self._write(f"    {line}\n")
        self._name = None

    def _line_start(self) -> str:
        """Back to the beginning of the line, and the step's name anew."""
        return f"\r\x1b[K  {self._name or '':<{_NAME_WIDTH}} "

    def _colour(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()
