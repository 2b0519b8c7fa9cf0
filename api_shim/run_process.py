"""One run of ansible-runner, in a process of its own that the playbook server forks."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import ansible_runner

#: In the environment of what stands in for `ansible-playbook`: the file that is locked while anything of it is there.
LOCK = "VPNFLEET_RUN_LOCK"
#: Of an event, what is told on: what it is called here. Everything else stays in this process.
_STEPS = {
    "runner_on_start": "started",
    "runner_on_ok": "done",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}
#: ansible-runner writes its environment into a file: of this process's, it gets these alone.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "TZ", "TMPDIR")


def run(connection: socket.socket, order: dict[str, Any]) -> None:
    """Run a playbook. Sends lines of JSON: {"step", "task", "node"}, and at last {"ended", "published"}.

    order: directory (a new one is made in it, and removed), playbook (its path), project (where it is run), inventory,
    variables (ids), check, timeout (seconds), environment (of the playbook). When the other end closes its half of the
    connection the playbook is ended. What is sent last is true: nothing of the playbook and its files is left.
    """
    os.environ.update(order["environment"])
    keep = {*_KEPT, *order["environment"]}
    for name in [name for name in os.environ if name not in keep]:
        del os.environ[name]
    directory = tempfile.mkdtemp(prefix="run-", dir=order["directory"])
    lock = Path(directory, "lock")
    lock.touch()
    os.environ[LOCK] = str(lock)
    published: dict[str, Any] | None = None

    def tell(message: dict[str, Any]) -> None:
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # nobody listens any more

    def on_event(event: dict[str, Any]) -> bool:
        nonlocal published
        data = event.get("event_data", {})
        if event["event"] == "playbook_on_stats":
            published = (data.get("artifact_data") or {}).get("vpnfleet")
        elif event["event"] in _STEPS and data.get("task"):
            tell({"step": _STEPS[event["event"]], "task": data["task"], "node": data.get("host") or ""})
        return False  # no file is needed

    def is_cancelled() -> bool:
        return bool(select.select([connection], [], [], 0)[0])

    try:
        done = ansible_runner.run(
            private_data_dir=directory,
            project_dir=order["project"],
            playbook=order["playbook"],
            inventory=order["inventory"],
            extravars=order["variables"],
            cmdline="--check" if order["check"] else None,
            quiet=True,
            event_handler=on_event,
            cancel_callback=is_cancelled,
            settings={
                "pexpect_timeout": 0.1,
                "job_timeout": order["timeout"],
                "suppress_ansible_output": True,
            },
        )
        # On its own, ansible-runner waits for no more than the process that it has started.
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    tell({"ended": done.status, "published": published})
