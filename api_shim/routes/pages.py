"""The document of the interface, for programs and for people."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

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
        _row(each["name"], f"{each['in']}, {_type(each['schema'], schemas)}", each.get("description", ""))
        for each in operation.get("parameters", ())
    )
    body = ""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        fields = "".join(_row(*each) for each in _fields(schema, schemas))
        example = json.dumps(_example(schema, schemas), ensure_ascii=False, indent=2)
        body = f"<h4>Body</h4><table>{fields}</table><pre>{escape(example)}</pre>"
    answers = "".join(
        _row(status, _shape(each, schemas), each["description"])
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


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, and without the null that may stand in its place."""
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each.get("type") != "null"]
        if len(others) == 1:
            schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **others[0]}
    if "$ref" in schema:
        found = _resolved(schemas[schema["$ref"].rpartition("/")[2]], schemas)
        return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def _type(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A type and its bounds in words."""
    one = _resolved(schema, schemas)
    if "anyOf" in one:
        return " or ".join(_type(each, schemas) for each in one["anyOf"])
    kind = str(one.get("format") or one.get("type", "any"))
    if "enum" in one:
        kind = " | ".join(str(each) for each in one["enum"])
    if kind == "array":
        kind = f"list of {_type(one.get('items', {}), schemas)}"
    bounds = []
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
    ):
        if low in one and high in one:
            bounds.append(f"{one[low]:.0f} to {one[high]:.0f}{unit}")
        elif high in one:
            bounds.append(f"at most {one[high]:.0f}{unit}")
        elif low in one:
            bounds.append(f"at least {one[low]:.0f}{unit}")
    if one.get("default") not in (None, []):
        bounds.append(f"default {json.dumps(one['default'])}")
    return ", ".join([kind, *bounds])


def _fields(schema: dict[str, Any], schemas: dict[str, Any], before: str = "") -> list[tuple[str, str, str]]:
    """Name, type and description of each field of a body; those of objects in it behind them."""
    one = _resolved(schema, schemas)
    found = []
    for name, each in one.get("properties", {}).items():
        needed = "; needed" if name in one.get("required", ()) else ""
        field = _resolved(each, schemas)
        found.append((before + name, _type(each, schemas) + needed, field.get("description", "")))
        inner = _resolved(field.get("items", {}), schemas) if field.get("type") == "array" else field
        dots = "[]." if field.get("type") == "array" else "."
        found += _fields(inner, schemas, f"{before}{name}{dots}")
    return found


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A body: what is needed, and what has an example or a default."""
    one = _resolved(schema, schemas)
    if one.get("examples"):
        return one["examples"][0]
    if "properties" not in one:
        return one.get("default")
    made = {name: _example(each, schemas) for name, each in one["properties"].items()}
    return {name: value for name, value in made.items() if value is not None}


def _shape(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The names of an answer's fields."""
    for content in response.get("content", {}).values():
        return ", ".join(_resolved(content.get("schema", {}), schemas).get("properties", ()))
    return ""
