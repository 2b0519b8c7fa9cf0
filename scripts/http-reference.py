#!/usr/bin/env python3
"""Prints the reference of the HTTP calls as a page in Markdown, from docs/openapi.json."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from api_shim.schema_words import answer_fields, example_of, fields_of, type_of  # noqa: E402

HEAD = """# Reference of the HTTP calls

Made from the interface's own OpenAPI document, which a server gives at `/openapi.json`. What to rely on, how the calls
belong together, and which shapes errors have is in [The HTTP interface](../docs/api.md#what-to-rely-on).

What goes wrong in the same way everywhere is told here, once. Calls without a key do not answer 401, 403 and 503.
"""


def main() -> int:
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    calls = [
        (method, path, each)
        for path, methods in document["paths"].items()
        for method, each in methods.items()
    ]
    told = Counter(
        (status, answer["description"]) for *_, each in calls for status, answer in each["responses"].items()
    )
    usual = sorted(one for one, times in told.items() if one[0] >= "400" and times > len(calls) / 2)
    parts = [HEAD + table(("answer", "when"), usual)]
    parts += [call(method, path, each, schemas, usual) for method, path, each in calls]
    sys.stdout.write("\n".join(parts))
    return 0


def call(
    method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any], usual: list[tuple[str, str]]
) -> str:
    """One call: what it takes, and what it answers but for the usual errors."""
    text = f"## {method.upper()} `{path}`\n\n{operation.get('description', '')}\n"
    parameters = [
        (each["name"], f"{each['in']}, {type_of(each['schema'], schemas)}", each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    text += table(("parameter", "where and what", "meaning"), parameters)
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        text += table(("field of the body", "type", "meaning"), fields_of(schema, schemas))
        example = example_of(schema, schemas)
        if example:
            text += f"\n```json\n{json.dumps(example, ensure_ascii=False, indent=2)}\n```\n"
    answers = [
        (status, answer_fields(each, schemas) if status < "400" else "an error", each["description"])
        for status, each in operation["responses"].items()
        if (status, each["description"]) not in usual
    ]
    return text + table(("answer", "fields", "when"), answers)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table, or nothing where there are no rows."""
    if not rows:
        return ""
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, *others in rows:
        lines.append(f"| `{name}` | {' | '.join(cell(each) for each in others)} |")
    return "\n" + "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text in a cell: `|` would end it, and so would a line break."""
    return " ".join(text.replace("|", "\\|").replace("<", "\\<").split())


if __name__ == "__main__":
    sys.exit(main())
