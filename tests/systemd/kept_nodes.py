"""Nodes that outlive the process that made them: those of a folder, in which a file says which they are."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.systemd.access import Access
from tests.systemd.network import Network
from tests.systemd.node import NodeError, SystemdNode


class KeptNodes:
    """The nodes of a folder: to be made, used by later processes, and removed. A context that ends what it opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._file = self._folder / "systemd.json"
        self._access: Access | None = None
        self._network = Network()
        # (image, number) by name
        self._made: dict[str, tuple[str, int]] = {}
        if self._file.exists():
            kept: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            self._network = Network(kept["prefix"], ipaddress.IPv4Network(kept["subnet"]))
            self._made = {name: (image, number) for name, (image, number) in kept["nodes"].items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._access is not None:
            self._access.close()

    def up(self, images: Mapping[str, str]) -> None:
        """Make a network and nodes of these names and images, which boot side by side.

        What the folder had is removed before. Raises what SystemdNode.start() does; down() then removes what there is.
        """
        self.down()
        self._network = Network()
        self._made = {name: (image, self._network.next_number()) for name, image in images.items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep()  # before anything is made that would have to be found again
        self._network.up()
        self._keep()
        with ThreadPoolExecutor() as pool:
            for booted in [pool.submit(node.start) for node in self.nodes()]:
                booted.result()

    def down(self) -> None:
        """Remove the nodes and their network. Does nothing where there is nothing."""
        if not self._file.exists():
            return
        with ExitStack() as cleanup:  # each step of it runs, also after another failed
            cleanup.callback(self._network.down)
            for node in self.nodes():
                cleanup.callback(node.remove)
        self._made = {}
        self._file.unlink()

    def nodes(self) -> list[SystemdNode]:
        """Return the nodes."""
        return [self.node(name) for name in self._made]

    def node(self, name: str) -> SystemdNode:
        """Return the node of that name. Raises NodeError where there is none."""
        if name not in self._made:
            raise NodeError(f"{self._folder} has no node {name}; it has {', '.join(self._made) or 'none'}")
        if self._access is None:
            self._access = Access(self._folder / "ssh")
        image, number = self._made[name]
        return SystemdNode(name, self._network, self._access, image, number)

    def inventory(self) -> dict[str, Any]:
        """Return an inventory of the nodes, in no group."""
        return {"all": {"hosts": {node.name: node.hostvars() for node in self.nodes()}}}

    def _keep(self) -> None:
        kept = {
            "prefix": self._network.prefix,
            "subnet": str(self._network.subnet),
            "nodes": self._made,
        }
        self._file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
