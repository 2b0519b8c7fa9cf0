"""Shows Mermaid's blocks without Mermaid: a Git host draws them by a script, and the site has none from elsewhere.

An `erDiagram` becomes a card for each table, with its columns, and what it has to do with others; a `stateDiagram-v2`
becomes a table of what leads from where to where, and a `sequenceDiagram` a drawing in the page's own colours.
"""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_ENTITY = re.compile(r"^    (\w+) \{\n(.*?)^    \}", re.DOTALL | re.MULTILINE)
_RELATION = re.compile(r'^    (\w+) (\S\S)--(\S\S) (\w+) : "(.+)"$', re.MULTILINE)
_STATE = re.compile(r'^    state "(.+)" as (\w+)$', re.MULTILINE)
_LANE = re.compile(r"^    participant (\w+) as (.+)$", re.MULTILINE)
_STEP = re.compile(r"^    (?:(Note) over (\w+)(?:,(\w+))?|(\w+)(--?>>)(\w+)): (.+)$", re.MULTILINE)
#: Of a drawing, in pixels: between two lanes, beside the outermost ones, a line of text, a character at the most.
_APART, _BESIDE, _LINE, _CHARACTER = 178, 84, 17, 6.7
_TRANSITION = re.compile(r"^    (\S+) --> (\S+?)(?:: (.+))?$", re.MULTILINE)


def replace(_app: Sphinx, doctree: nodes.document) -> None:
    """Put what is shown in the place of each block. A block of another kind is an error."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") != "mermaid":
            continue
        text = block.astext()
        kind = text.split(None, 1)[0]
        shown = {"erDiagram": tables, "stateDiagram-v2": transitions, "sequenceDiagram": sequence}[kind](text)
        block.replace_self(nodes.raw("", shown, format="html"))


def tables(text: str) -> str:
    """The cards of an entity-relationship diagram."""
    told: dict[str, list[str]] = {}
    for one, _, many, other, words in _RELATION.findall(text):
        number = "one" if many in ("o|", "||") else "many"
        told.setdefault(one, []).append(f"{escape(words)} {_link(other)} <i>({number})</i>")
    cards = []
    for name, body in _ENTITY.findall(text):
        rows = "".join(_column(line.strip()) for line in body.splitlines())
        relations = "".join(f"<li>{each}</li>" for each in told.get(name, ()))
        cards.append(
            f'<section class="entity" id="table-{name}"><h4>{name}</h4><table>{rows}</table>'
            f"{f'<ul>{relations}</ul>' if relations else ''}</section>"
        )
    return f'<div class="entities">{"".join(cards)}</div>'


def _link(table: str) -> str:
    return f'<a href="#table-{table}">{table}</a>'


def _column(line: str) -> str:
    kind, name, keys = (*line.split(" ", 2), "")[:3]
    return f"<tr><td>{escape(name)}</td><td>{escape(kind)}</td><td>{escape(keys)}</td></tr>"


def transitions(text: str) -> str:
    """The table of a state diagram."""
    names = {short: name for name, short in _STATE.findall(text)}
    rows = []
    for index, (before, after, event) in enumerate(_TRANSITION.findall(text)):
        start = "(nothing yet)" if index == 0 or before == "[*]" else names.get(before, before)
        end = "(the end)" if after == "[*]" else names.get(after, after)
        rows.append(f"<tr><td>{escape(start)}</td><td>{escape(event)}</td><td>{escape(end)}</td></tr>")
    return (
        '<table class="docutils states"><thead><tr><th>from</th><th>when</th><th>to</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def sequence(text: str) -> str:
    """The drawing of a sequence diagram: who does what to whom, from top to bottom."""
    lanes = _LANE.findall(text)
    at = {short: _BESIDE + index * _APART for index, (short, _) in enumerate(lanes)}
    width = 2 * _BESIDE + (len(lanes) - 1) * _APART
    drawn, below = [], 62
    for note, first, last, start, arrow, end, words in _STEP.findall(text):
        left, right = sorted((at[first or start], at[last or end or first]))
        room = right - left if right > left and not note else right - left + _APART - 30
        if start and start == end:
            room = _APART - 30
        lines = textwrap.wrap(words, int(room / _CHARACTER))
        height = _LINE * len(lines)
        middle = (left + right) / 2
        if note:
            drawn.append(
                f'<rect class="note" x="{middle - room / 2 - 6:.0f}" y="{below}" '
                f'width="{room + 12:.0f}" height="{height + 9}" rx="4"/>'
            )
            drawn.append(_lines(lines, middle, below + 16))
            below += height + 22
        elif start == end:
            # To the right, but of the last lane, which has no room there.
            side, anchor = (-1, "end") if start == lanes[-1][0] else (1, "start")
            drawn.append(_lines(lines, left + 16 * side, below + 13, anchor))
            foot = below + max(height, 20)
            drawn.append(f'<path d="M{left} {below + 4}h{10 * side}V{foot}h{-7 * side}"/>')
            below = foot + 14
        else:
            drawn.append(_lines(lines, middle, below + 11))
            foot = below + height + 3
            dashed = ' class="answer"' if arrow == "-->>" else ""
            nearly = at[end] + (-3 if at[end] > at[start] else 3)
            drawn.append(f'<path{dashed} d="M{at[start]} {foot}H{nearly}"/>')
            below = foot + 13
    heads = "".join(
        f'<rect x="{at[short] - 78}" y="6" width="156" height="38" rx="6"/>'
        f'{_lines([name], at[short], 30, kind="head")}<path class="lane" d="M{at[short]} 44V{below}"/>'
        for short, name in lanes
    )
    return (
        f'<div class="drawing"><svg viewBox="0 0 {width} {below + 6}" width="{width}" role="img">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>{heads}{"".join(drawn)}</svg></div>'
    )


def _lines(lines: list[str], x: float, y: float, anchor: str = "middle", kind: str = "") -> str:
    return "".join(
        f'<text class="{kind}" x="{x:.0f}" y="{y + _LINE * index:.0f}" text-anchor="{anchor}">{escape(line)}</text>'
        for index, line in enumerate(lines)
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Replace the blocks of each page when it has been read."""
    app.connect("doctree-read", replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
