"""Run one command of the machine, and say what it printed when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


class CommandFailed(RuntimeError):
    """A command ended with another return code than 0; the text holds what it printed."""

    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        self.result = result
        output = "\n".join(part.strip() for part in (result.stdout, result.stderr) if part and part.strip())
        super().__init__(f"`{' '.join(result.args)}` ended with {result.returncode}:\n{output[-4000:]}")


def execute(
    argv: Sequence[str],
    *,
    input: str | None = None,  # noqa: A002 - as subprocess.run calls it
    check: bool = True,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end, without a terminal.

    `timeout` is in seconds. Raises CommandFailed (with `check`), or subprocess.TimeoutExpired.
    """
    result = subprocess.run(
        list(argv),
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )
    if check and result.returncode != 0:
        raise CommandFailed(result)
    return result
