"""The schemas of the OpenAPI document in words, for pages that people read."""

from __future__ import annotations

import json
from typing import Any


def resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, and without the null that may stand in its place."""
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each.get("type") != "null"]
        if len(others) == 1:
            schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **others[0]}
    if "$ref" in schema:
        found = resolved(schemas[schema["$ref"].rpartition("/")[2]], schemas)
        return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def type_of(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A type and its bounds in words."""
    one = resolved(schema, schemas)
    if "anyOf" in one:
        return " or ".join(type_of(each, schemas) for each in one["anyOf"])
    kind = str(one.get("format") or one.get("type", "any"))
    if "enum" in one:
        kind = " | ".join(str(each) for each in one["enum"])
    if kind == "array":
        kind = f"list of {type_of(one.get('items', {}), schemas)}"
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


def fields_of(
    schema: dict[str, Any], schemas: dict[str, Any], before: str = ""
) -> list[tuple[str, str, str]]:
    """Name, type and description of each field of a body; those of objects in it behind them."""
    one = resolved(schema, schemas)
    found = []
    for name, each in one.get("properties", {}).items():
        needed = "; needed" if name in one.get("required", ()) else ""
        field = resolved(each, schemas)
        found.append((before + name, type_of(each, schemas) + needed, field.get("description", "")))
        inner = resolved(field.get("items", {}), schemas) if field.get("type") == "array" else field
        dots = "[]." if field.get("type") == "array" else "."
        found += fields_of(inner, schemas, f"{before}{name}{dots}")
    return found


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A body: what is needed, and what has an example or a default."""
    one = resolved(schema, schemas)
    if one.get("examples"):
        return one["examples"][0]
    if "properties" not in one:
        return one.get("default")
    made = {name: example_of(each, schemas) for name, each in one["properties"].items()}
    return {name: value for name, value in made.items() if value is not None}


def answer_fields(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The names of an answer's fields."""
    for content in response.get("content", {}).values():
        return ", ".join(resolved(content.get("schema", {}), schemas).get("properties", ()))
    return ""
