"""A PostgreSQL server of the test's own: in a directory of its own, on a Unix socket alone, gone at the end.

It has nothing to do with a server that Debian's package may have started: another directory, another socket, no TCP.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

ROLE = "vpnfleet"
# The account of Debian's package: PostgreSQL refuses to run as root.
ACCOUNT = "postgres"
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
# Only a part of the socket's name, as nothing listens on TCP.
PORT = 5432
START_SECONDS = 60
STOP_SECONDS = 30

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "200",
    # It need not survive a power cut. What is committed does survive `kill`: that is what synchronous_commit=off would
    # lose, and these do not.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


class PostgresError(Exception):
    """The server could not be made, started or stopped; the message says what it said."""


class PostgresServer:
    """A server that runs, its databases, and what tests of faults do to it."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        """Process id of the server. PostgresError when it does not run."""
        if self._process is None:
            raise PostgresError("the server does not run")
        return self._process.pid

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database, through psycopg 3 and the Unix socket."""
        return f"postgresql+psycopg://{ROLE}@/{database}?host={self.directory}&port={PORT}"

    def create_database(self) -> str:
        """Makes an empty database and returns its name."""
        name = f"registry_{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Removes a database; connections that are still open to it end."""
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Starts the server and waits until it answers; after `stop` or `kill` with the data as it was."""
        if self._process is not None:
            raise PostgresError("the server runs already")
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        log = self.directory / "log"
        with log.open("ab") as output:
            # Should this process be killed, the kernel ends the server.
            self._process = subprocess.Popen(
                [
                    *_as_owner("--pdeathsig", "QUIT"),
                    self._programs / "postgres",
                    "-D",
                    self.directory / "data",
                    f"--unix_socket_directories={self.directory}",
                    *options,
                ],
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                code = self._process.poll()
                if code is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                self._end(signal.SIGQUIT)
                state = "did not answer" if code is None else f"ended with exit code {code}"
                said = log.read_text(errors="replace")[-2000:]
                raise PostgresError(f"PostgreSQL {state}: {error}\n{said}") from error

    def stop(self) -> None:
        """Stops the server in order, as for its upgrade: open connections are ended, nothing is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server at once, as in a crash: what is not committed is lost."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise PostgresError(f"PostgreSQL (process {process.pid}) did not end by {how.name}") from None

    def _connect(self) -> psycopg.Connection:
        """A connection for what no transaction may hold: databases made and dropped."""
        return psycopg.connect(
            host=str(self.directory), port=PORT, user=ROLE, dbname="postgres", autocommit=True
        )


@contextmanager
def throw_away_server() -> Iterator[PostgresServer]:
    """A new server that runs; ended and removed at the end, whatever happened. PostgresError when there is none."""
    programs = _programs()
    directory = Path(tempfile.mkdtemp(prefix="vpnfleet-postgres-"))
    try:
        if os.getuid() == 0:
            account = _account()
            os.chown(directory, account.pw_uid, account.pw_gid)
        _initdb(programs, directory)
        server = PostgresServer(directory, programs)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


def _initdb(programs: Path, directory: Path) -> None:
    # Trust: the socket's directory lets in nobody but its owner and root.
    done = subprocess.run(
        [
            *_as_owner(),
            programs / "initdb",
            "--pgdata=data",
            f"--username={ROLE}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        cwd=directory,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise PostgresError(f"initdb: exit code {done.returncode}\n{done.stdout}")


def _programs() -> Path:
    """The directory of the newest server's programs: on PATH, or where Debian has them."""
    versions = sorted(DEBIAN_PROGRAMS.glob("*/bin"), key=_version, reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, versions)])
    initdb = shutil.which("initdb", path=path)
    if initdb is None:
        raise PostgresError("PostgreSQL's initdb is not on this machine: `make system-database` installs it")
    return Path(initdb).resolve().parent


def _version(programs: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in programs.parent.name.split(".") if part.isdigit())


def _as_owner(*options: str) -> list[str]:
    """The start of a command that runs as the server's owner: the user of the tests or, for root, ACCOUNT."""
    if os.getuid() == 0:
        account = _account()
        options = (*options, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups")
    return ["setpriv", *options] if options else []


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise PostgresError(
            f"PostgreSQL does not run as root, and there is no user {ACCOUNT}: `make system-database` makes it"
        ) from None


def _environment() -> dict[str, str]:
    """Without PGPORT, PGDATA and the like, that somebody may have set for a server of theirs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return environment | {"LC_ALL": "C"}
