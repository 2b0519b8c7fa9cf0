"""Waiting for what comes about on a node."""

from __future__ import annotations

import time

from tests.lab.node import Node


def wait_for(node: Node, condition: str, seconds: float = 60) -> None:
    """Until a shell on the node finds the condition true."""
    deadline = time.monotonic() + seconds
    while node.run(["sh", "-c", condition], check=False).returncode != 0:
        assert time.monotonic() < deadline, f"{condition} does not come true"
        time.sleep(0.05)
