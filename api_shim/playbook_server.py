"""Runs playbooks without loading Ansible each time.

A process of its own with one thread, that has imported Ansible, ansible-runner and the registry once. For each request
on its socket it forks. The two kinds of requests:

    run       ansible-runner runs a playbook; lines of JSON come back (see run_process). Closing the connection cancels.
    playbook  what ansible-runner starts in the place of `ansible-playbook` (see ansible_playbook.py) hands over its
              arguments, environment, standard streams and the lock of its run, and gets the exit code. When it is
              killed, the playbook is.

Its own environment has what playbooks need and ansible-runner must not write down: where the registry is, and its key.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

from api_shim import run_process

#: What a request may say at most, in bytes; the ids of a run's operations are in it.
MOST_BYTES = 4 * 2**20
_TERM_SECONDS = 5.0
_OURS = "ansible_collections.vpnfleet.wireguard.plugins"
_PRELOADED = (
    *(f"ansible.plugins.action.{name}" for name in ("normal", "fail", "validate_argument_spec")),
    *(f"ansible.plugins.cache.{name}" for name in ("memory",)),
    *(f"ansible.plugins.filter.{name}" for name in ("core", "encryption", "mathstuff", "urls", "urlsplit")),
    *(f"ansible.plugins.inventory.{name}" for name in ("auto", "host_list", "ini", "yaml")),
    *(f"ansible.plugins.strategy.{name}" for name in ("linear",)),
    *(f"ansible.plugins.test.{name}" for name in ("core", "files", "mathstuff", "uri")),
    *(f"ansible.plugins.vars.{name}" for name in ("host_group_vars",)),
    *(f"{_OURS}.action.operation_{name}" for name in ("begin", "converge", "drift", "report")),
    *(
        f"{_OURS}.plugin_utils.registry.{name}"
        for name in ("disconnect", "drift", "provision", "reconcile", "remove", "replay", "transfer")
    ),
    f"{_OURS}.inventory.registry",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
#: Of these kinds, Ansible asks each plugin that there is for the options it takes, in every run.
_ASKED = ("become", "callback", "connection", "shell")
#: And of these, those that are used.
_USED = ("cache", "inventory", "vars")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def serve(path: str) -> None:
    """Serve requests on a socket at `path`, made here for this user alone, until the process that started this ends."""
    preload()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o077)
        listener.bind(path)
        os.umask(before)
        listener.listen(64)
        # Children are reaped by the kernel; each gets the default back, as it waits for its own.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Whoever started this holds the other end.
        parent = sys.stdin.fileno()
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listener, parent], [], [])
            if parent in readable:
                return
            connection, _ = listener.accept()
            with connection:
                if _fork() == 0:
                    listener.close()
                    _work(connection)


def preload() -> None:
    """Import what every run needs. Ansible takes a plugin that is imported already as it is."""
    import_module("ansible.cli.playbook")
    import_module("ansible.plugins.loader").init_plugin_loader([])
    for name in _PRELOADED:
        import_module(name)
    _preload_options()
    import_module("sqlalchemy.orm").configure_mappers()
    # Collections of garbage would touch, and so copy, each page that is shared with the children.
    gc.collect()
    gc.freeze()


def _preload_options() -> None:
    """Have Ansible know which options plugins take: it reads that out of their documentation, in YAML, when it first
    meets them."""
    loaders = import_module("ansible.plugins.loader")
    for kind in _ASKED:
        package = import_module(f"ansible.plugins.{kind}")
        for module in iter_modules(package.__path__):
            with suppress(ImportError):  # it lacks a library, and is of no use to a playbook either
                import_module(f"{package.__name__}.{module.name}")
    for kind in (*_ASKED, *_USED):
        loader = getattr(loaders, f"{kind}_loader")
        for name, plugin in list(sys.modules.items()):
            own, _dot, base = name.rpartition(".")
            if own == f"ansible.plugins.{kind}":
                loader._load_config_defs(base, plugin, plugin.__file__)
            elif own == f"{_OURS}.{kind}":
                loader._load_config_defs(name, plugin, plugin.__file__)


def _fork() -> int:
    sys.stdout.flush()
    return os.fork()


def _work(connection: socket.socket) -> NoReturn:
    """What a child does: one request."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        message, fds = _receive(connection)
        if message["what"] == "run":
            run_process.run(connection, message["settings"])
            code = 0
        else:
            code = _supervise(connection, message, fds)
    finally:
        # Nothing of what the parent registered for its own end is for a child to do.
        os._exit(code)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request: its length in a line, JSON, and the descriptors that come along."""
    data, fds, _flags, _address = socket.recv_fds(connection, 65536, 4)
    head, _, body = data.partition(b"\n")
    length = int(head)
    if length > MOST_BYTES:
        raise ValueError("the request is too long")
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("the request ends too early")
        body += more
    message: dict[str, Any] = json.loads(body)
    return message, fds


def _supervise(connection: socket.socket, message: dict[str, Any], fds: list[int]) -> int:
    """Have a playbook run in a child, tell its exit code; kill it when the other end closes the connection."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # The lock is this process's until it ends: after all that is below it.
    *streams, lock = fds
    child = os.fork()
    if child == 0:
        connection.close()
        os.close(lock)
        _become_playbook(message, streams)
    for fd in streams:
        os.close(fd)
    ended = os.pidfd_open(child)
    watched: list[int] = [ended, connection.fileno()]
    readable, _, _ = select.select(watched, [], [])
    if ended not in readable:
        _end(child, ended)
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    code = 128 - code if code < 0 else code
    try:
        connection.sendall(f"{code}\n".encode())
    except OSError:
        pass  # nobody waits for it any more
    return 0


def _end(child: int, ended: int) -> None:
    """End a playbook with all its processes, wherever they have put themselves."""
    os.kill(child, signal.SIGTERM)
    if not select.select([ended], [], [], _TERM_SECONDS)[0]:
        os.kill(child, signal.SIGKILL)
        select.select([ended], [], [])
    deadline = time.monotonic() + _TERM_SECONDS
    # Orphans are this process's children by now.
    while left := [pid for pid in descendants(os.getpid()) if pid != child and not _is_shared(pid)]:
        for pid in left:
            _kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, as far as they live."""
    found: list[int] = []
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return found
    for child in map(int, text.split()):
        if _is_running(child):
            found.append(child)
        found += descendants(child)
    return found


def _is_running(pid: int) -> bool:
    # Not of the collection: that must be imported by Ansible's own loader, or not at all before it.
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2][1]
            not in "ZX"
        )
    except OSError:
        return False


def _is_shared(pid: int) -> bool:
    """Whether a process is ssh's shared connection (ControlPersist), which serves other runs too and ends by itself."""
    try:
        return b"[mux]" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _become_playbook(message: dict[str, Any], fds: list[int]) -> NoReturn:
    code = 250
    try:
        # The supervisor's end is the playbook's, however it comes.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.setsid()
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(message["directory"])
        os.environ.update(message["environment"])
        code = _play(["ansible-playbook", *message["arguments"]])
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass
        os._exit(code)


def _play(arguments: list[str]) -> int:
    from ansible import cli
    from ansible.cli.playbook import PlaybookCLI

    # It was done in preload, and doing it again gives a warning.
    cli.init_plugin_loader = lambda *_arguments: None
    try:
        PlaybookCLI.cli_executor(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _prctl(option: int, value: int) -> None:
    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    serve(sys.argv[1])
