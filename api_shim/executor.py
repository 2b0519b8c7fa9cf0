"""The port behind which playbooks are run: by ansible-runner here (`local`), or as AWX's job templates (`awx`).

What becomes of the operations is in the registry, where the playbook writes it; an executor says how the run itself
ended and what it published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Run:
    """One execution of a playbook. It is told ids and nothing else: all that came from outside is in the registry."""

    id: str
    playbook: (
        str  # such as `disconnect`: playbooks/disconnect.yml, and in AWX the template `vpnfleet disconnect`
    )
    operations: tuple[str, ...]  # their ids, as the extra var `operations`
    check: bool = False  # look only, and publish the plan


@dataclass(frozen=True)
class Ended:
    """How a run ended. `published` is what the playbook published by set_stats under `vpnfleet`, if it came so far."""

    status: Literal["successful", "failed", "canceled", "error"]
    published: dict[str, Any] | None = None
    message: str = ""  # for `error`: why it could not be run, without any secret


@dataclass(frozen=True)
class Progress:
    """A step of a run: a task that begins on a node, or is done there, or is not."""

    step: Literal["started", "done", "failed", "unreachable"]
    task: str
    node: str


Tell = Callable[[Progress], None]


class Executor(Protocol):
    """Runs playbooks; called by several threads at once."""

    def execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:
        """Run a playbook to its end. When `cancelled` is set it is ended, and nothing of it is left behind.

        Raises nothing: what goes wrong is an Ended with status `error`.
        """

    def close(self) -> None:
        """Let go of what the executor holds; no run is at work any more."""
