"""The examples that the collection's modules, plugins, roles and pages show their readers."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.checkout import ROOT

COLLECTION = ROOT / "collection"
NAME = "vpnfleet.wireguard"
MODULES = sorted((COLLECTION / "plugins" / "modules").glob("*.py"))
PLUGINS = sorted(
    path for kind in ("inventory", "lookup") for path in (COLLECTION / "plugins" / kind).glob("*.py")
)
ROLES = sorted(path for path in (COLLECTION / "roles").iterdir() if path.is_dir())
PAGES = [
    *(ROOT / "README.md", COLLECTION / "README.md"),
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted((ROOT / "inventories").glob("*/README.md")),
    *(role / "README.md" for role in ROLES),
]


def examples(plugin: Path) -> list[Any]:
    """The documents in a module's or plugin's EXAMPLES."""
    for statement in ast.parse(plugin.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "EXAMPLES":
            return list(yaml.safe_load_all(ast.literal_eval(statement.value)))
    raise AssertionError(f"{plugin} has no EXAMPLES")


def code(text: str, language: str) -> list[str]:
    """The blocks of a language in a page's text, without their indentation; of none: what is to be typed."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        for indent, kind, body in found
        if kind == language
    ]


def blocks(page: Path) -> list[Any]:
    """What the blocks of YAML in a page say."""
    texts = code(page.read_text(encoding="utf-8"), "yaml")
    return [document for text in texts for document in yaml.safe_load_all(text)]


def plays(document: Any) -> list[Any] | None:
    """A document as plays; tasks become one. None for what is neither, such as variables."""
    if not isinstance(document, list) or not all(
        isinstance(each, dict) and "name" in each for each in document
    ):
        return None
    if all("hosts" in each or "import_playbook" in each for each in document):
        return document
    if any("." in key and isinstance(value, dict | None) for each in document for key, value in each.items()):
        return [{"name": "Run the example", "hosts": "nodes", "gather_facts": False, "tasks": document}]
    return None


def tasks(document: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Every task in plays, also those in blocks."""
    for each in document:
        nested = [task for key in ("tasks", "block", "rescue", "always") for task in each.get(key, ())]
        if nested:
            yield from tasks(nested)
        elif "hosts" not in each:
            yield each


@functools.cache
def specs_of_modules() -> dict[str, dict[str, Any]]:
    """What each module takes, by its documentation, as an argument spec; by the module's full name."""
    names = [f"{NAME}.{path.stem}" for path in MODULES]
    command = [sys.executable, "-m", "ansible", "doc", "--json", *names]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout
    return {name: _spec(each["doc"].get("options", {})) for name, each in json.loads(told).items()}


def spec_of_role(role: Path, entry: str) -> dict[str, Any]:
    """The same of an entry point of a role."""
    text = (role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return _spec(yaml.safe_load(text)["argument_specs"][entry].get("options", {}))


def _spec(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("type", "elements", "required", "choices", "default", "aliases")
    spec = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in kept if key in option}
        below = option.get("suboptions") or option.get("options")
        if below:
            spec[name]["options"] = _spec(below)
    return spec


def filled(value: Any, spec: Mapping[str, Any]) -> Any:
    """A value of an example with something of the right type in the place of each template."""
    if isinstance(value, str) and "{{" in value:
        if spec.get("choices"):
            return spec["choices"][0]
        return {"list": [], "dict": {}, "int": 1, "bool": True}.get(spec.get("type", "str"), "text")
    if isinstance(value, list):
        element = {"type": spec.get("elements", "str"), "options": spec.get("options", {})}
        return [filled(each, element) for each in value]
    if isinstance(value, dict):
        options = spec.get("options", {})
        return {name: filled(each, options.get(name, {})) for name, each in value.items()}
    return value
