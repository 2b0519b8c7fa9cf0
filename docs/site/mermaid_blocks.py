"""Shows Mermaid's blocks without Mermaid: a Git host draws them by a script, and the site has none from elsewhere.

An `erDiagram` becomes a card for each table, with its columns, and what it has to do with others; a `stateDiagram-v2`
becomes a table of what leads from where to where.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_ENTITY = re.compile(r"^    (\w+) \{\n(.*?)^    \}", re.DOTALL | re.MULTILINE)
_RELATION = re.compile(r'^    (\w+) (\S\S)--(\S\S) (\w+) : "(.+)"$', re.MULTILINE)
_STATE = re.compile(r'^    state "(.+)" as (\w+)$', re.MULTILINE)
_TRANSITION = re.compile(r"^    (\S+) --> (\S+?)(?:: (.+))?$", re.MULTILINE)


def replace(_app: Sphinx, doctree: nodes.document) -> None:
    """Put what is shown in the place of each block. A block of another kind is an error."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") != "mermaid":
            continue
        text = block.astext()
        kind = text.split(None, 1)[0]
        shown = {"erDiagram": tables, "stateDiagram-v2": transitions}[kind](text)
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


def setup(app: Sphinx) -> dict[str, Any]:
    """Replace the blocks of each page when it has been read."""
    app.connect("doctree-read", replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
