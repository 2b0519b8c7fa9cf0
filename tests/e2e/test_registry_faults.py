"""The registry goes away between any two steps of an operation: nothing is lost, and the next run ends it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import registry_fleet
from tests.e2e.broken_tools import GO, WAIT, stand_ins, waiting
from tests.e2e.registry_fleet import RegistryFleet, names_of, registered
from tests.e2e.started_playbook import finish
from tests.e2e.waiting import wait_for
from tests.lab.fleet import Lab
from tests.postgres.server import PostgresServer

lab = registry_fleet.lab


@contextmanager
def on(server: PostgresServer, lab: Lab, folder: Path) -> Iterator[RegistryFleet]:
    with registered(lab, "postgresql", server.url(server.create_database()), folder) as fleet:
        yield fleet


def test_postgresql_goes_away(own_postgres_server: PostgresServer, lab: Lab, tmp_path: Path) -> None:
    """Between what is recorded and what is done, and between that and its being written down."""
    server = own_postgres_server
    with on(server, lab, tmp_path) as fleet:
        names = early, late, left, gone = names_of("early", "late", "left", "gone")
        told = fleet.provision(dict.fromkeys(names, "node1"))
        nodes = fleet.states()

        started = fleet.start("transfer", wait_at=2, instance=early, node="node2")
        started.wait()
        server.kill()
        started.go()
        run = started.finish()
        assert run.code == 2
        assert "the registry (postgresql+psycopg://" in run.told
        assert "cannot be used: " in run.told
        assert fleet.states() == nodes
        server.start()
        assert [one.state for one in fleet.operations(early)] == ["succeeded", "running"]

        # The module is at work on a node meanwhile.
        with stand_ins(fleet.nodes["node1"]), stand_ins(fleet.nodes["node2"]):
            for node in ("node1", "node2"):
                fleet.nodes[node].run(["sh", "-c", WAIT])
            fleet_runs = [
                fleet.start("transfer", instance=late, node="node2"),
                fleet.start("remove", instance=gone),
                fleet.start("disconnect", instance=left),
            ]
            wait_for(fleet.nodes["node1"], waiting(2))
            wait_for(fleet.nodes["node2"], waiting(1))
            server.stop()
            for node in ("node1", "node2"):
                fleet.nodes[node].run(["sh", "-c", GO])
            runs = finish(*fleet_runs)
        assert [run.code for run in runs] == [2, 2, 2]
        assert all("cannot be used: " in run.told for run in runs)
        assert fleet.places(told[late]["interface"]) == {"node1": "up", "node2": "up"}
        assert fleet.places(told[gone]["interface"]) == fleet.places(told[left]["interface"]) == {}

        server.start()
        runs = finish(
            fleet.start("transfer", instances=[early, late], node="node2"),
            fleet.start("remove", instance=gone),
            fleet.start("disconnect", instance=left),
        )
        assert [run.code for run in runs] == [0, 0, 0], [run.output for run in runs]
        states = fleet.states()
        assert {name: fleet.places(told[name]["interface"], states=states) for name in names} == {
            early: {"node2": "up"},
            late: {"node2": "up"},
            left: {},
            gone: {},
        }
        assert fleet.instance(gone) is None
        assert fleet.teardowns() == []
        assert not fleet.unfinished()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "vpnfleet-test", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_the_file_of_sqlite_is_taken_away(lab: Lab, tmp_path: Path) -> None:
    with registered(lab, "sqlite", f"sqlite:///{tmp_path}/db/registry.db", tmp_path) as fleet:
        (name,) = names_of("moved")
        told = fleet.provision({name: "node1"})[name]
        nodes = fleet.states()

        started = fleet.start("transfer", wait_at=2, instance=name, node="node2")
        started.wait()
        (tmp_path / "db").rename(tmp_path / "elsewhere")
        started.go()
        run = started.finish()
        assert run.code == 2
        assert "there is no registry at " in run.told
        assert not (tmp_path / "db").exists()
        assert fleet.states() == nodes

        (tmp_path / "elsewhere").rename(tmp_path / "db")
        fleet.done("transfer", instance=name, node="node2")
        assert fleet.places(told["interface"]) == {"node2": "up"}
        assert not fleet.unfinished()


def test_the_disk_is_full(lab: Lab, small_disk: Path, tmp_path: Path) -> None:
    """Before anything is recorded: nothing is done. After a node did its part: that is written down when it can be."""
    with registered(lab, "sqlite", f"sqlite:///{small_disk}/registry.db", tmp_path) as fleet:
        (name,) = names_of("moved")
        told = fleet.provision({name: "node1"})[name]
        nodes, before = fleet.states(), fleet.desired()

        with full(small_disk):
            run = fleet.run("transfer", instance=name, node="node2")
        assert run.code != 0
        assert re.search(r"the registry \(sqlite:.*?\) cannot be used: .*(disk|open)", run.told), run.output
        assert (fleet.states(), fleet.desired()) == (nodes, before)

        with stand_ins(fleet.nodes["node2"]):
            fleet.nodes["node2"].run(["sh", "-c", WAIT])
            started = fleet.start("transfer", instance=name, node="node2")
            wait_for(fleet.nodes["node2"], waiting(1))
            with full(small_disk):
                fleet.nodes["node2"].run(["sh", "-c", GO])
                wait_for(fleet.nodes["node2"], f"ip link show up {told['interface']}")
                time.sleep(3)  # It tries again meanwhile.
        run = started.finish()
        assert run.code == 0, run.output
        assert fleet.places(told["interface"]) == {"node2": "up"}
        assert fleet.node_of(name) == "node2"
        assert not fleet.unfinished()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    yield
    filler.unlink()
