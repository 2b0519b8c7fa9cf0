"""The lab from the command line: python -m tests.lab up | down | status | exec | shell."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from tests.lab.errors import LabError
from tests.lab.fleet import DEFAULT_NAME, Lab
from tests.lab.host import ENVIRONMENT, CommandFailed, Host


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        return _do(options)
    except (LabError, CommandFailed) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


def _do(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces, mounts and links")
    if options.command == "up":
        lab = Lab(options.name, options.nodes, options.devices)
        lab.up()
        size = f"{len(lab.nodes)} nodes, {len(lab.devices)} devices"
        print(f"lab {lab.name} is up: {size}; inventory {lab.inventory}")
    elif options.command == "down":
        Lab(options.name).down()
        print(f"lab {options.name} is down")
    elif options.command == "status":
        return _status(options.name)
    elif options.command == "exec":
        _replace_by(_host(options.name, options.host), options.argv)
    elif options.command == "shell":
        _replace_by(_host(options.name, options.host), ["bash", "-l"])
    return 0


def _status(name: str) -> int:
    lab = Lab(name)
    if not lab.is_up():
        print(f"lab {name} is down")
        return 1
    for host in lab.hosts:
        state = "down" if host.pid is None else "up"
        print(f"{host.name}\t{state}\t{host.address}\t{host.address6}")
    return 0


def _host(lab: str, name: str) -> Host:
    hosts = Lab.running(lab).hosts
    for host in hosts:
        if host.name == name:
            return host
    raise LabError(f"lab {lab} has no host {name!r}, but {', '.join(host.name for host in hosts)}")


def _replace_by(host: Host, argv: list[str]) -> None:
    command = [*host.enter(), *argv]
    os.execvpe(command[0], command, {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")})  # noqa: S606


def _end(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end the program as an exception does, so that a half-built lab is removed."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="A fleet in network namespaces.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="build the lab; one that runs is left as it is")
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--devices", type=int, default=3)
    down = commands.add_parser("down", help="remove the lab, also one built half-way")
    status = commands.add_parser("status", help="show the hosts; exits with 1 when the lab is down")
    execute = commands.add_parser("exec", help="run a command on a host: exec HOST -- command ...")
    shell = commands.add_parser("shell", help="a shell on a host")
    for command in (execute, shell):
        command.add_argument("host")
    execute.add_argument("argv", nargs="+", metavar="command")
    for command in (up, down, status, execute, shell):
        command.add_argument("--name", default=DEFAULT_NAME, help="the lab's name (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
