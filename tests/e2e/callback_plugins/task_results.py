"""Writes the result of each task, as Ansible gives it to any callback, into a file of JSON lines for the tests."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_results
type: aggregate
short_description: Results of tasks as JSON lines
description: One line per task and host with C(task), C(host), C(status) and C(result), in E(TASK_RESULTS).
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """One line per result, in the file that TASK_RESULTS names."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_results"
    CALLBACK_NEEDS_ENABLED = True

    def _keep(self, status: str, result: Any) -> None:
        line = {
            "task": result._task.get_name(),
            "host": result._host.get_name(),
            "status": status,
            "result": result._result,
        }
        with open(os.environ["TASK_RESULTS"], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._keep("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        self._keep("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._keep("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._keep("skipped", result)
