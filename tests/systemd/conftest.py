"""Nodes with systemd for the tests below. Where they cannot be made the tests fail and say why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.systemd.access import Access
from tests.systemd.command import CommandFailed
from tests.systemd.image import ImageError, ensure_image
from tests.systemd.network import Network
from tests.systemd.node import NodeError, NodeFactory, SystemdNode

_REASONS = (ImageError, NodeError, CommandFailed, subprocess.TimeoutExpired, OSError)


@pytest.fixture(scope="session")
def systemd_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeFactory]:
    """Return a factory: `systemd_nodes("name")` makes a node, started, on the network of all others.

    The same name again returns the same node. All are removed at the end of the session.
    """
    try:
        usual = ensure_image()
    except _REASONS as error:
        pytest.fail(f"no image for nodes with systemd: {error}", pytrace=False)
    nodes: dict[str, SystemdNode] = {}
    with ExitStack() as cleanup:  # each step of it runs, also after another failed
        network = Network()
        cleanup.callback(network.down)
        access = Access(Path(tmp_path_factory.mktemp("systemd")))
        cleanup.callback(access.close)

        def make(name: str, image: str | None = None) -> SystemdNode:
            if name not in nodes:
                node = SystemdNode(name, network, access, image or usual)
                cleanup.callback(node.remove)
                try:
                    node.start()
                except _REASONS as error:
                    pytest.fail(f"no node with systemd: {error}", pytrace=False)
                nodes[name] = node
            return nodes[name]

        try:
            network.up()
        except _REASONS as error:
            pytest.fail(f"no network for nodes with systemd: {error}", pytrace=False)
        yield make


@pytest.fixture(scope="session")
def systemd_node(systemd_nodes: NodeFactory) -> SystemdNode:
    """Return the session's first node."""
    return systemd_nodes("node1")
