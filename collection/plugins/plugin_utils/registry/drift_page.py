# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on the drift of a fleet as one page of HTML, for people.

It needs nothing but itself: no script, nothing that is loaded. What is in it came from customers and from nodes, and is
text. It stays small enough to be looked at whatever the drift, and says what it leaves out.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import DEFAULT_MAX_REMOVALS
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import drift_page_html as html
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_order import place
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_page_style import (
    POLICY,
    STYLE,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.visible_text import visible

#: What the page shows at the most: nodes in the table, entries of one kind of one node, and of all of them together.
MOST_NODES = 2000
MOST_OF_A_KIND = 100
MOST_ENTRIES = 2000
_MOST_SECTIONS = 500
_LONGEST_COMMAND = 1000

_KINDS = (
    ("interface_issues", "interface_count"),
    ("missing_peers", "missing_count"),
    ("mismatched_peers", "mismatched_count"),
    ("unknown_peers", "unknown_count"),
)
_TITLES = {
    "interface_issues": ("Interface issues", "what is set up otherwise than the registry says"),
    "missing_peers": ("Missing peers", "in the registry, and not on the node: these devices cannot connect"),
    "mismatched_peers": ("Mismatched peers", "on the node, with other settings than the registry has"),
    "unknown_peers": ("Unknown peers", "on the node, and not in the registry: they have access all the same"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def page(data: Mapping[str, Any], created_at: str, instances: Mapping[str, str], whole: str) -> str:
    """The page.

    `data` is the report on the fleet in the contract's shape, its nodes with their names as `node`; `created_at` the
    moment in UTC; `instances` the customers' names by interface; `whole` the name of the file that has all of it.
    """
    nodes = sorted(data["nodes"].values(), key=_order)
    troubled = [node for node in nodes if _state(node) != "good"]
    numbers = Counter(_state(node) for node in nodes)
    room = [MOST_ENTRIES]
    sections = [_section(node, instances, whole, room) for node in troubled[:_MOST_SECTIONS]]
    if len(troubled) > _MOST_SECTIONS:
        left = len(troubled) - _MOST_SECTIONS
        told = html.more(f"{html.counted(left, 'more node')} with trouble are left out here", whole)
        sections.append(f"<section>{told}</section>")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            '<meta name="robots" content="noindex">',
            f"<title>{escape(_title(numbers))} – vpnfleet</title>",
            f"<style>{STYLE}</style>",
            "<main>",
            f"<h1>{escape(_title(numbers))}</h1>",
            f'<p class="soft">The registry compared with what the nodes run, at {html.text(created_at)} UTC.',
            f'As data: <a href="{escape(quote(whole))}">{html.text(whole)}</a></p>',
            _numbers(data["summary"], nodes, numbers),
            _overview(nodes, whole),
            *sections,
            "</main>",
            "</html>",
            "",
        ]
    )


# ---- the fleet at a glance


def _state(node: Mapping[str, Any]) -> str:
    """In a word, which is a class of the style, too."""
    if "error" in node:
        return "lost"
    return "bad" if node["has_drift"] else "good"


def _order(node: Mapping[str, Any]) -> tuple[Any, ...]:
    """What needs somebody's eyes first: what is not known, then the most drift."""
    return (
        ("lost", "bad", "good").index(_state(node)),
        -node["summary"]["total_issues"],
        _name(node),
        node["node_id"],
    )


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("node") or node["node_id"])


def _title(numbers: Mapping[str, int]) -> str:
    total = sum(numbers.values())
    if numbers["good"] == total:
        return f"No drift on {html.counted(total, 'node')}"
    parts = [f"drift on {numbers['bad']} of {html.counted(total, 'node')}"] if numbers["bad"] else []
    if numbers["lost"]:
        parts.append(
            f"{numbers['lost']} of {html.counted(total, 'node')} not read"
            if not parts
            else f"{numbers['lost']} not read"
        )
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def _numbers(
    summary: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]
) -> str:
    lost = "could not be read"
    if "unreachable_nodes" in summary:
        found = summary["unreachable_nodes"]
        lost += f" ({found if isinstance(found, int) else len(found)} unreachable)"
    of_nodes = (
        ("nodes", len(nodes), ""),
        ("✓ in order", numbers["good"], "good"),
        ("▲ with drift", numbers["bad"], "bad"),
        (f"✕ {lost}", numbers["lost"], "lost"),
    )
    of_kinds = [("differences in all", summary["total_issues"], "bad")] + [
        (_TITLES[kind][0].lower(), sum(node["summary"].get(count, 0) for node in nodes), "bad")
        for kind, count in _KINDS
    ]
    return "\n".join(
        f'<dl class="numbers" aria-label="{label}">'
        + "".join(
            f"<div><dt>{html.text(what)}</dt><dd{html.classed(kind if number else '')}>{number:,}</dd></div>"
            for what, number, kind in cards
        )
        + "</dl>"
        for label, cards in (("Nodes", of_nodes), ("Differences", of_kinds))
    )


def _overview(nodes: Sequence[Mapping[str, Any]], whole: str) -> str:
    shown = nodes[:MOST_NODES]
    more = [
        (key, title)
        for key, title in (("reachable", "Reachable"), ("last_seen", "Last seen (UTC)"))
        if any(key in node for node in nodes)
    ]
    heads = ["State", "Interfaces", "Missing", "Mismatched", "Unknown", *(title for _key, title in more)]
    rows = []
    for index, node in enumerate(shown):
        linked = _state(node) != "good" and index < _MOST_SECTIONS
        name = f"<bdi>{html.text(_name(node))}</bdi>"
        cells = [html.cell("State", _state_in_words(node))]
        for title, (_kind, count) in zip(heads[1:5], _KINDS, strict=True):
            number = node["summary"].get(count, 0)
            shown_number = "–" if "error" in node else f"{number:,}"
            cells.append(html.cell(title, shown_number, "number" if number else "number zero"))
        # Who was read was seen then.
        known = {"last_seen": node.get("detected_at")} | {
            key: node[key] for key, _title in more if key in node
        }
        cells += [html.cell(title, html.value(key, known.get(key))) for key, title in more]
        rows.append([f'<a href="#{_anchor(node)}">{name}</a>' if linked else name, *cells])
    left = len(nodes) - len(shown)
    return html.table("All nodes, those with trouble first", ["Node", *heads], rows, numbers=range(2, 6)) + (
        html.more(f"{html.counted(left, 'more node')} left out here", whole) if left else ""
    )


def _state_in_words(node: Mapping[str, Any]) -> str:
    state = _state(node)
    words = {
        "good": "✓ in order",
        "bad": f"▲ {html.counted(node['summary']['total_issues'], 'difference')}",
        "lost": "✕ unreachable" if node.get("reachable") is False else "✕ not read",
    }
    return f'<span class="{state}">{words[state]}</span>'


# ---- one node


def _anchor(node: Mapping[str, Any]) -> str:
    return escape(quote(f"node-{node['node_id']}"))


def _section(node: Mapping[str, Any], instances: Mapping[str, str], whole: str, room: list[int]) -> str:
    """`room` is how many entries the page has room for; it counts down."""
    parts = [f'<section id="{_anchor(node)}" aria-labelledby="{_anchor(node)}-name">']
    parts.append(
        f'<h2 id="{_anchor(node)}-name"><bdi>{html.text(_name(node))}</bdi>: {_state_in_words(node)}</h2>'
    )
    seen = (
        [f"Looked at {html.value('detected_at', node['detected_at'])} UTC."]
        if node.get("detected_at")
        else []
    )
    if "error" in node and node.get("last_seen"):
        seen.append(f"Last seen {html.value('last_seen', node['last_seen'])} UTC.")
    if seen:
        parts.append(f'<p class="soft">{" ".join(seen)}</p>')
    if "error" in node:
        parts.append(f"<p>{html.text(node['error'])}</p>")
        parts.append("<p>What it runs is not known. When it is back, look again:</p>")
        parts.append(_commands([_command("drift", node)]))
        return "\n".join([*parts, "</section>"])
    for kind, count in _KINDS:
        number = node["summary"].get(count, len(node[kind]))
        if number:
            parts.append(_list(kind, node, number, instances, whole, room))
    parts.append(_repair(node))
    return "\n".join([*parts, "</section>"])


def _list(
    kind: str, node: Mapping[str, Any], number: int, instances: Mapping[str, str], whole: str, room: list[int]
) -> str:
    title, means = _TITLES[kind]
    entries = sorted(node[kind], key=place)[: min(MOST_OF_A_KIND, room[0])]
    room[0] -= len(entries)
    heads, rows = _ROWS[kind](entries, instances)
    made = f'<h3>{title}: {number:,}</h3>\n<p class="soft">{means[0].upper()}{means[1:]}.</p>\n'
    if rows:
        made += html.table(f"{title} of {_name(node)}", heads, rows, hidden=True)
    if number > len(entries):
        left = f"{number - len(entries):,} of {number:,} are left out here"
        if len(node[kind]) < number:
            left += f"; {len(node[kind]):,} of them are in the data, and all of them are counted"
        made += html.more(left, whole)
    return made


Rows = tuple[list[str], list[list[str]]]


def _interface_rows(entries: Iterable[Mapping[str, Any]], instances: Mapping[str, str]) -> Rows:
    return ["Interface", "What", "Should be", "Is"], [
        [
            html.interface(one, instances),
            html.cell("What", html.field(one["field"])),
            html.cell("Should be", html.value(one["field"], one["expected"]), "should"),
            html.cell("Is", html.value(one["field"], one["actual"]), "is"),
        ]
        for one in entries
    ]


def _missing_rows(entries: Iterable[Mapping[str, Any]], instances: Mapping[str, str]) -> Rows:
    return ["Interface", "Peer", "Allowed IPs"], [
        [
            html.interface(one, instances),
            html.cell("Peer", html.peer(one)),
            html.cell("Allowed IPs", html.value("allowed_ips", one["allowed_ips"])),
        ]
        for one in entries
    ]


def _mismatched_rows(entries: Iterable[Mapping[str, Any]], instances: Mapping[str, str]) -> Rows:
    return ["Interface", "Peer", "What", "Should be", "Is"], [
        [
            html.interface(one, instances),
            html.cell("Peer", html.peer(one)),
            html.cell("What", html.field(each["field"])),
            html.cell("Should be", html.value(each["field"], each["expected"]), "should"),
            html.cell("Is", html.value(each["field"], each["actual"]), "is"),
        ]
        for one in entries
        for each in one["mismatches"]
    ]


def _unknown_rows(entries: Iterable[Mapping[str, Any]], instances: Mapping[str, str]) -> Rows:
    return ["Interface", "Public key", "Allowed IPs", "Seen at", "Keepalive"], [
        [
            html.interface(one, instances),
            html.cell("Public key", html.key(one["public_key"])),
            html.cell("Allowed IPs", html.value("allowed_ips", one["allowed_ips"])),
            html.cell("Seen at", html.value("endpoint", one["endpoint"] or "nowhere")),
            html.cell("Keepalive", html.value("persistent_keepalive", one["persistent_keepalive"])),
        ]
        for one in entries
    ]


_ROWS = {
    "interface_issues": _interface_rows,
    "missing_peers": _missing_rows,
    "mismatched_peers": _mismatched_rows,
    "unknown_peers": _unknown_rows,
}


def _repair(node: Mapping[str, Any]) -> str:
    """What to run. Nothing that would cut somebody off is there to be copied without a word about it."""
    numbers = node["summary"]
    unknown = numbers.get("unknown_count", 0)
    made = ["<h3>Repair</h3>"]
    if numbers["total_issues"] > unknown:
        made.append("<p>See what would be done, then do it. No other peer notices:</p>")
        made.append(_commands([_command("reconcile", node, check=True), _command("reconcile", node)]))
    if unknown:
        most = max(Counter(one["interface"] for one in node["unknown_peers"]).values(), default=0)
        if node.get("truncated"):
            most = unknown
        switches = ["remove_unknown=true", *([f"max_removals={most}"] if most > DEFAULT_MAX_REMOVALS else [])]
        made.append("<p>Unknown peers stay unless you say so. Whoever uses them is cut off by this:</p>")
        made.append(
            _commands(
                [_command("reconcile", node, *switches, check=True), _command("reconcile", node, *switches)]
            )
        )
    if any((one["field"], one["expected"]) == ("interface", "absent") for one in node["interface_issues"]):
        made.append(
            "<p>Of interfaces that should not be there, those are taken down that the registry once had. Those that it "
            "never knew are left alone.</p>"
        )
    return "\n".join(made)


def _command(playbook: str, node: Mapping[str, Any], *switches: str, check: bool = False) -> str:
    name = _name(node)
    asked = f"node={name}" if _PLAIN_NAME.fullmatch(name) else json.dumps({"node": name})
    words = ["ansible-playbook", "-i", "inventories/production", f"playbooks/{playbook}.yml"]
    for one in (asked, *switches):
        words += ["-e", one]
    return shlex.join([*words, *(["--check", "--diff"] if check else [])])


def _commands(commands: Iterable[str]) -> str:
    told = "\n".join(escape(visible(one, _LONGEST_COMMAND)) for one in commands)
    return f'<pre tabindex="0" aria-label="Commands"><code>{told}</code></pre>'
