# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of drift_page is put together from: tables, and values in words. All of it is HTML; what came from
outside is text in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.visible_text import visible

_LONGEST = 300  # characters of a text
_MOST_VALUES = 20  # values of a list
_FIELDS = {
    "interface": "Interface",
    "public_key": "Public key",
    "listen_port": "Listen port",
    "addresses": "Addresses",
    "mtu": "MTU",
    "enabled at boot": "Comes up at boot",
    "file": "Config file",
    "allowed_ips": "Allowed IPs",
    "persistent_keepalive": "Keepalive",
    "preshared_key": "Preshared key (fingerprint)",
}
_WORDS = {
    ("interface", "absent"): "not there",
    ("interface", "file"): "down, its config file is left",
    ("file", "as running"): "says what runs",
}


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    hidden: bool = False,
) -> str:
    """Rows of a head, and of cells that are made already."""
    of_numbers = set(numbers)
    head = "".join(
        f'<th scope="col"{" class=number" if index in of_numbers else ""}>{escape(title)}</th>'
        for index, title in enumerate(heads)
    )
    body = "\n".join(f'<tr><th scope="row">{row[0]}</th>{"".join(row[1:])}</tr>' for row in rows)
    named = f' aria-label="{text(caption)}"' if hidden else ""
    told = "" if hidden else f"<caption>{text(caption)}</caption>"
    return f"<table{named}>{told}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"


def cell(title: str, made: str, kind: str = "") -> str:
    """A cell of what is made already; `kind` is a class of the style."""
    # On a narrow screen each cell says by itself what it is.
    return f'<td data-is="{escape(title)}"{classed(kind)}><div>{made}</div></td>'


def classed(kind: str) -> str:
    """The attribute that says of which class of the style an element is."""
    return f' class="{kind}"' if kind else ""


def more(told: str, whole: str) -> str:
    """What is left out here; `whole` is the name of the file that has it."""
    return f'<p class="more">{text(told)}. The rest is in <a href="{escape(quote(whole))}">{text(whole)}</a>.</p>\n'


def interface(entry: Mapping[str, Any], instances: Mapping[str, str]) -> str:
    """Which interface it is about, and whose that is."""
    name = str(entry["interface"])
    whose = instances.get(name)
    return text(name) + (f'<bdi class="name soft">{text(whose)}</bdi>' if whose else "")


def peer(entry: Mapping[str, Any]) -> str:
    """Which peer it is about."""
    name = entry.get("name")
    return (f'<bdi class="name">{text(name)}</bdi>' if name else "") + key(entry["public_key"])


def key(value: object) -> str:
    """A key, which is told from others letter by letter."""
    return f'<span class="key">{text(value)}</span>'


def field(name: object) -> str:
    """What a field of the report is called."""
    return text(_FIELDS.get(str(name), name))


def value(field: str, value: Any) -> str:
    """A value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], ""):
        return "–" if field in ("reachable", "last_seen") else "none"
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - _MOST_VALUES:,} more"] if len(value) > _MOST_VALUES else []
        return "<br>".join([*(text(one) for one in value[:_MOST_VALUES]), *more])
    if field == "persistent_keepalive" and isinstance(value, int):
        return f"every {value} s" if value else "off"
    if field in ("last_seen", "detected_at"):
        return text(str(value).replace("T", " ").removesuffix("Z").removesuffix("+00:00"))
    if field == "public_key":
        return key(value)
    return text(_WORDS.get((field, str(value)), value))


def text(value: object) -> str:
    """Any text as HTML."""
    return escape(visible(str(value), _LONGEST))


def counted(number: int, what: str) -> str:
    """So many of these."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
