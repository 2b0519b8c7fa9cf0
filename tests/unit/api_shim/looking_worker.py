"""A worker in a process of its own, for tests of several: `python -m … FOLDER`.

Its runs are of looks at nodes, and find nothing out; each leaves a file in the folder, and begins when there is one
called `go`. So does each time that it has looked for work. It ends with its stdin.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, operations, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, new_id
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from api_shim.executor import Ended, Run, Tell
from api_shim.settings import Settings
from api_shim.worker import Worker


class Looking:
    """An executor: a run begins, as the playbook's does, and ends at once."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder

    def execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:  # noqa: ARG002
        """As the port says."""
        (self._folder / f"run-{os.getpid()}-{run.id}").touch()
        while not (self._folder / "go").exists():
            time.sleep(0.02)
        with self._registry.write() as session:
            hosts = frozenset(session.scalars(select(Node.name)))
            mine = operations.Run(run.id, process_token(os.getpid()), "", hosts)
            looks.begin(session, queue.rows(session, "drift", {"operations": list(run.operations)}), mine)
        with self._registry.write() as session:
            results = operations.finish(session, operations.of_run(session, run.id), mine)
        published = {"operation": "drift", "status": "error", "changed": False, "operations": results}
        return Ended("failed", published)

    def close(self) -> None:
        """Nothing is held."""


class Telling(Worker):
    """Tells when it has looked for work."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        super().__init__(registry, Looking(registry, folder), Settings())
        self._folder = folder

    def _begin_batches(self) -> None:
        super()._begin_batches()
        (self._folder / f"looked-{os.getpid()}-{new_id()}").touch()


def main() -> None:
    """As the module says."""
    worker = Telling(open_registry(), Path(sys.argv[1]))
    worker.start()
    sys.stdin.read()
    worker.stop(30)


if __name__ == "__main__":
    main()
