"""`python -m api_shim keys …`: make, list and revoke API keys."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, time, timedelta

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import ApiKey, now
from api_shim import keys

_LONGEST_DAYS = 36500


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands and their arguments."""
    parser = commands.add_parser("keys", help="make, list and revoke API keys")
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("name", metavar="NAME", help="who or what will use it, such as billing-2027")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=keys.SCOPES,
        help="billing: the billing system's calls; ops: all; read: GET only. May be given several times",
    )
    ends = create.add_mutually_exclusive_group()
    ends.add_argument(
        "--expires", type=_end_of_day, metavar="DATE", help="last day on which it works (UTC), as 2027-01-31"
    )
    ends.add_argument("--expires-in-days", type=_days, metavar="N", help="it works for so many days")
    create.set_defaults(run=_create)
    actions.add_parser("list", help="list all keys, without the keys themselves").set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="end a key, for good and within seconds")
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(run=_revoke)


def _create(arguments: argparse.Namespace) -> None:
    expires: datetime | None = arguments.expires
    if arguments.expires_in_days is not None:
        expires = now() + timedelta(days=arguments.expires_in_days)
    with closing(open_registry()) as registry, registry.write() as session:
        key = keys.create(session, arguments.name, arguments.scope, expires, actor({}))
    print(key)


def _list(_: argparse.Namespace) -> None:
    with closing(open_registry(make=False)) as registry, registry.read() as session:
        rows = keys.list_keys(session)
    if not rows:
        print("There are no keys yet: python -m api_shim keys create NAME --scope billing|ops|read")
        return
    print(_table([("NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE"), *map(_row, rows)]))


def _revoke(arguments: argparse.Namespace) -> None:
    with closing(open_registry(make=False)) as registry, registry.write() as session:
        changed = keys.revoke(session, arguments.name, actor({}))
    print(f"{arguments.name} is revoked" if changed else f"{arguments.name} was revoked before")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.name,
        ",".join(key.scopes),
        _time(key.created_at),
        _time(key.expires_at),
        _time(key.last_used_at),
        keys.state_of(key, now()),
    )


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M") if at else "never"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _end_of_day(text: str) -> datetime:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2027-01-31") from None
    end = datetime.combine(day, time(23, 59, 59), UTC)
    if end <= now():
        raise argparse.ArgumentTypeError(f"{text} is in the past")
    return end


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 5 and 1 <= int(text) <= _LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {_LONGEST_DAYS}")
    return int(text)
