"""The server of the tests: it is empty and their own, keeps to its socket, and is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from tests.checkout import ROOT
from tests.postgres import server as server_module
from tests.postgres.opened import opened
from tests.postgres.server import PORT, ROLE, PostgresError, PostgresServer, throw_away_server
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node

# Makes a server, says where it is, and waits to be killed.
KILLED = """
import sys
from tests.postgres.server import throw_away_server

with throw_away_server() as server:
    print(server.pid, server.directory, flush=True)
    sys.stdin.read()
"""


def tables(url: str) -> list[str]:
    engine = sqlalchemy.create_engine(url)
    try:
        return sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement))
    finally:
        engine.dispose()


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_database(database_url: str, turn: int) -> None:
    assert tables(database_url) == []
    execute(database_url, f"CREATE TABLE of_turn_{turn} (id INTEGER)")
    assert tables(database_url) == [f"of_turn_{turn}"]


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_registry(
    registry_url: str, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = opened(registry_url)
    with registry.write() as session:
        assert session.scalars(sqlalchemy.select(Node.name)).all() == []
        add_instance(session, add_node(session, f"node{turn}"), peers=2)
    registry.close()


def test_the_url_names_the_database_it_is_for(database_url: str, request: pytest.FixtureRequest) -> None:
    url = sqlalchemy.make_url(database_url)
    assert url.get_backend_name() in request.node.name
    assert url.password is None


def test_a_connection_that_was_left_open_does_not_keep_a_database(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    with psycopg.connect(host=str(postgres_server.directory), port=PORT, user=ROLE, dbname=name) as left_open:
        left_open.execute("SELECT 1")
        postgres_server.drop_database(name)
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")


def test_it_does_not_listen_on_tcp(postgres_server: PostgresServer) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    inodes = {line.split()[9] for line in listening.splitlines() if line.split()[3] == "0A"}
    held = {str(link.readlink()) for link in Path(f"/proc/{postgres_server.pid}/fd").iterdir()}
    assert any(name.startswith("socket:") for name in held)
    assert not held & {f"socket:[{inode}]" for inode in inodes}


def test_it_lets_in_nobody_else(postgres_server: PostgresServer) -> None:
    assert postgres_server.directory.stat().st_mode & 0o077 == 0


def test_it_is_gone_after_a_failure() -> None:
    with contextlib.suppress(ZeroDivisionError), throw_away_server() as server:
        pid, directory = server.pid, server.directory
        raise ZeroDivisionError
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


def test_it_ends_with_the_process_that_made_it() -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    pid, directory = maker.stdout.readline().split()
    # Opened while it runs, so that it is this process and no later one with the same number.
    descriptor = os.pidfd_open(int(pid))
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    try:
        assert _ended(descriptor)
    finally:
        os.close(descriptor)
        shutil.rmtree(directory)


def _ended(descriptor: int) -> bool:
    """Whether the process ends; half a minute is far more than it takes."""
    readable, _, _ = select.select([descriptor], [], [], 30)
    return bool(readable)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_server_that_went_away_comes_back_with_what_was_committed(
    own_postgres_server: PostgresServer, way: str
) -> None:
    url = own_postgres_server.url(own_postgres_server.create_database())
    execute(url, "CREATE TABLE committed (id INTEGER)")
    getattr(own_postgres_server, way)()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        tables(url)
    own_postgres_server.start()
    assert tables(url) == ["committed"]


def test_two_servers_share_nothing(
    postgres_server: PostgresServer, own_postgres_server: PostgresServer
) -> None:
    assert postgres_server.directory != own_postgres_server.directory
    for server in (postgres_server, own_postgres_server):
        name = server.create_database()
        execute(server.url(name), "CREATE TABLE mine (id INTEGER)")
        assert tables(server.url(name)) == ["mine"]
        server.drop_database(name)


def test_a_machine_without_postgresql_is_told_the_make_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_module, "DEBIAN_PROGRAMS", tmp_path)
    with pytest.raises(
        PostgresError, match=r"^PostgreSQL's initdb is not .* `make system-database` installs it$"
    ):
        throw_away_server().__enter__()
