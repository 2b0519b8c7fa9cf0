"""What the documentation shows works: it is read by Ansible, and everything takes what it is given in it.

Those of the modules are run, too: tests/e2e/test_examples.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests import documented
from tests.checkout import ROOT
from tests.documented import MODULES, NAME, PAGES, PLUGINS, ROLES

IMPORTS = ("import_role", "include_role", "ansible.builtin.import_role", "ansible.builtin.include_role")
DOCUMENTS = [
    *(
        (f"{path.stem}-{number}", each)
        for path in (*MODULES, *PLUGINS)
        for number, each in enumerate(documented.examples(path))
    ),
    *(
        ("-".join(path.relative_to(ROOT).parts[:-1]) + f"-{path.stem}-{number}", each)
        for path in PAGES
        for number, each in enumerate(documented.blocks(path))
    ),
]
PLAYS = {name: plays for name, each in DOCUMENTS if (plays := documented.plays(each)) is not None}


def test_ansible_reads_all_of_them(tmp_path: Path) -> None:
    for playbook in (ROOT / "playbooks").glob("operation_*.yml"):
        (tmp_path / playbook.name).symlink_to(playbook)
    files = []
    for name, plays in PLAYS.items():
        files.append(tmp_path / f"{name}.yml")
        files[-1].write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    assert len(files) > 25
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "--syntax-check", *files],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_takes_its_examples(module: Path) -> None:
    spec = documented.specs_of_modules()[f"{NAME}.{module.stem}"]
    given = [
        task[f"{NAME}.{module.stem}"]
        for document in documented.examples(module)
        for task in documented.tasks(documented.plays(document) or [])
        if f"{NAME}.{module.stem}" in task
    ]
    assert given
    for arguments in given:
        check(spec, arguments or {})


def test_modules_take_what_pages_and_playbooks_give_them() -> None:
    specs = documented.specs_of_modules()
    playbooks = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "playbooks").glob("*.yml")
    ]
    seen = 0
    for plays in (*PLAYS.values(), *playbooks):
        for task in documented.tasks(plays):
            for name in task.keys() & specs.keys():
                check(specs[name], task[name] or {})
                seen += 1
    assert seen > 20


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_a_role_shows_how_it_is_used_and_takes_what_it_is_given(role: Path) -> None:
    seen = 0
    for plays in PLAYS.values():
        for entry, variables in uses(plays, f"{NAME}.{role.name}"):
            spec = documented.spec_of_role(role, entry)
            check(spec, variables, partial=True)
            seen += 1
    assert seen
    shown = [documented.plays(each) for each in documented.blocks(role / "README.md")]
    assert any(plays and uses(plays, f"{NAME}.{role.name}") for plays in shown)


@pytest.mark.parametrize("kind", ["provision", "disconnect", "transfer", "remove", "drift", "reconcile"])
def test_the_role_of_an_operation_shows_its_playbook(kind: str) -> None:
    """Which is what the end-to-end tests run."""
    playbook = yaml.safe_load((ROOT / "playbooks" / f"{kind}.yml").read_text(encoding="utf-8"))
    assert documented.blocks(documented.COLLECTION / "roles" / kind / "README.md")[0] == playbook


def uses(plays: list[Any], role: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Each use of a role in plays: its part, and the variables that it is given there."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    keywords = {"role", "tags", "when", "become", "vars"}
    for play in plays:
        for each in play.get("roles", ()):
            if each == role:
                found.append(("main", {}))
            elif isinstance(each, dict) and each["role"] == role:
                found.append(("main", {name: value for name, value in each.items() if name not in keywords}))
    for task in documented.tasks(plays):
        for name in IMPORTS:
            if task.get(name, {}).get("name") == role:
                found.append((task[name].get("tasks_from", "main"), task.get("vars", {})))
    return found


def check(spec: dict[str, Any], arguments: Mapping[str, Any], partial: bool = False) -> None:
    """Arguments fit a spec; in part: what is needed may come from elsewhere."""
    if partial:
        spec = {name: {**option, "required": False} for name, option in spec.items()}
    values = {name: documented.filled(value, spec.get(name, {})) for name, value in arguments.items()}
    assert ArgumentSpecValidator(spec).validate(values).error_messages == [], arguments
