"""The document of the interface, for programs and for people."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from api_shim.schema_words import answer_fields, example_of, fields_of, type_of

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color-scheme: light dark }}
summary {{ cursor: pointer; padding: .3em 0 }} code {{ font-size: 1.05em }}
td {{ padding: 0 1em .2em 0; vertical-align: top }} h4 {{ margin: .8em 0 .2em }}
pre {{ padding: .5em; border: 1px solid; overflow: auto }}
</style>
<h1>{title}</h1><p>{description}</p>
<p>Keys: <code>X-API-Key: vpf_…</code> or <code>Authorization: Bearer vpf_…</code>.
In full: <a href="openapi.json">openapi.json</a></p>
{operations}
</html>
"""
# Nothing is loaded from elsewhere, and nothing is run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """The document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """A page with all calls."""
    return HTMLResponse(_page(request.app), headers={"Content-Security-Policy": _POLICY})


def _page(app: Any) -> str:
    document = app.openapi()
    operations = "\n".join(
        _operation(method, path, each, document["components"]["schemas"])
        for path, methods in document["paths"].items()
        for method, each in methods.items()
    )
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]), description=escape(info["description"]), operations=operations
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = "".join(
        _row(each["name"], f"{each['in']}, {type_of(each['schema'], schemas)}", each.get("description", ""))
        for each in operation.get("parameters", ())
    )
    body = ""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        fields = "".join(_row(*each) for each in fields_of(schema, schemas))
        example = json.dumps(example_of(schema, schemas), ensure_ascii=False, indent=2)
        body = f"<h4>Body</h4><table>{fields}</table><pre>{escape(example)}</pre>"
    answers = "".join(
        _row(status, answer_fields(each, schemas), each["description"])
        for status, each in operation["responses"].items()
    )
    told = "".join(f"<p>{escape(each)}</p>" for each in operation.get("description", "").split("\n\n"))
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> – "
        f"{escape(operation.get('summary', ''))}</summary>{told}"
        f"{f'<h4>Parameters</h4><table>{rows}</table>' if rows else ''}{body}"
        f"<h4>Answers</h4><table>{answers}</table></details>"
    )


def _row(name: str, kind: str, description: str) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{escape(kind)}<td>{escape(description)}"
