"""The document of the interface, for programs and for people."""

from __future__ import annotations

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
td {{ padding: 0 1em .2em 0; vertical-align: top }}
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
        _operation(method, path, each)
        for path, methods in document["paths"].items()
        for method, each in methods.items()
    )
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]), description=escape(info["description"]), operations=operations
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each['in'])}<td>{escape(each.get('description', ''))}"
        for each in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{escape(status)}<td colspan=2>{escape(each['description'])}"
        for status, each in operation["responses"].items()
    )
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> – "
        f"{escape(operation.get('summary', ''))}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p><table>{rows}{answers}</table></details>"
    )
