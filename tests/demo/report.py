"""The demo's steps as they go, on the screen and in report.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.demo.screen import Screen


class StepFailed(Exception):
    """A step did not show what it should; the message says what was seen instead, and where to look."""


@dataclass(frozen=True)
class Step:
    """One step and how it ended; `seconds` is how long it took."""

    name: str
    ok: bool
    detail: str
    seconds: float


class Report:
    """Runs steps. The file at `path` holds at any time what is known so far: `ok` (every step passed, and the demo
    came to its end), `seconds` and `steps`."""

    def __init__(self, path: Path, screen: Screen) -> None:
        self.steps: list[Step] = []
        self._path = path
        self._screen = screen
        self._started = time.monotonic()
        self._finished = False
        self._write()

    @property
    def ok(self) -> bool:
        return self._finished and all(step.ok for step in self.steps)

    def step(self, name: str, action: Callable[[], str]) -> bool:
        """Do one step; whether it passed. `action` returns what it measured, and raises when that is not right.

        An interrupt counts as a failure of the step and goes on.
        """
        started = time.monotonic()
        self._screen.begin(name)
        try:
            ok, detail = True, action()
        except Exception as error:
            ok, detail = False, str(error) or type(error).__name__
        except BaseException:
            self._add(Step(name, False, "interrupted", time.monotonic() - started))
            raise
        self._add(Step(name, ok, detail, time.monotonic() - started))
        return ok

    def finish(self) -> None:
        """Say that there are no more steps to come."""
        self._finished = True
        self._write()

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self._screen.end(step.ok, step.detail, step.seconds)
        self._write()

    def _write(self) -> None:
        steps = [{**asdict(step), "seconds": round(step.seconds, 2)} for step in self.steps]
        seconds = round(time.monotonic() - self._started, 2)
        text = json.dumps({"ok": self.ok, "seconds": seconds, "steps": steps}, indent=2, ensure_ascii=False)
        self._path.write_text(text + "\n", encoding="utf-8")
