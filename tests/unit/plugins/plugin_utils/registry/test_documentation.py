"""docs/registry.md shows the tables and states that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import JSON, Boolean, CheckConstraint, Column, Integer

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import database, secrets, teardown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Instance,
    Operation,
    Utc,
)
from tests.checkout import ROOT

PAGE = (ROOT / "docs/registry.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
TYPES = ((secrets.Encrypted, "secret"), (Utc, "time"), (Boolean, "bool"), (Integer, "int"), (JSON, "json"))


def shown(column: Column[object]) -> str:
    """A column as the picture has it."""
    kind = next((name for kind, name in TYPES if isinstance(column.type, kind)), "text")
    keys = [
        name
        for name, is_one in (("PK", column.primary_key), ("FK", column.foreign_keys), ("UK", column.unique))
        if is_one
    ]
    return f"{kind} {column.name} {', '.join(keys)}".strip()


def test_the_picture_has_every_table_with_its_columns() -> None:
    tables = re.findall(r"^    (\w+) \{\n(.*?)^    \}", PICTURES[0], re.DOTALL | re.MULTILINE)
    assert {name: [line.strip() for line in body.splitlines()] for name, body in tables} == {
        table.name: [shown(column) for column in table.columns] for table in Base.metadata.sorted_tables
    }


def test_the_picture_has_every_relation() -> None:
    drawn = re.findall(r'^    (\w+) (\S\S)--(\S\S) (\w+) : ".+"$', PICTURES[0], re.MULTILINE)
    wanted = []
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            single = column.unique or (column.primary_key and len(table.primary_key.columns) == 1)
            for key in column.foreign_keys:
                ends = ("|o" if column.nullable else "||", "o|" if single else "o{")
                wanted.append((key.column.table.name, *ends, table.name))
    assert sorted(drawn) == sorted(wanted)


def test_every_table_is_explained() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .+ \|$", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(Base.metadata.tables) <= named


@pytest.mark.parametrize(("model", "picture"), [(Instance, 1), (Operation, 2)], ids=["instance", "operation"])
def test_every_state_is_drawn(model: type[Base], picture: int) -> None:
    (check,) = (
        each
        for each in model.metadata.tables[model.__tablename__].constraints
        if isinstance(each, CheckConstraint)
    )
    states = re.findall(r"'(\w+)'", str(check.sqltext))
    assert states
    for state in states:
        assert re.search(rf"\b{state}\b", PICTURES[picture]), state


def test_names_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name in (
        database.VARIABLE,
        secrets.VARIABLE,
        str(database.default_path().relative_to(Path.home())),
        teardown.REMOVED,
        teardown.TRANSFERRED,
        teardown.RESERVED,
    ):
        assert f"`{name}`" in PAGE or f"`~/{name}`" in PAGE, name


def test_links_lead_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    }
    links = re.findall(r"\]\(#([\w-]+)\)", PAGE)
    assert links
    assert set(links) <= headings
