"""What runs on nodes runs on the oldest Python that ansible-core 2.19 takes there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

COLLECTION = ROOT / "collection"
MODULE_UTILS = COLLECTION / "plugins/module_utils"
NODE_FILES = sorted([*MODULE_UTILS.rglob("*.py"), *COLLECTION.glob("plugins/modules/*.py")])
OLDEST = (3, 8)

IMPORT_ALL = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module("ansible_collections.vpnfleet.wireguard.plugins.module_utils." + name)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils import config_file, desired, keys, plan, report, state
wanted = desired.check_instance({"name": "wg0", "peers": [{"public_key": "k" * 42 + "A="}], "mtu": 1380}, "")
there = state.InterfaceState()
target = plan.target(wanted, there, lambda key: "p", keys.new_private_key, lambda: 5, lambda: 1420)
assert config_file.parse(target.file) == target.config
print(len(report.summary(plan.plan(there, target))), "steps")
"""


def old_python() -> tuple[int, int, str] | None:
    """The oldest Python of 3.8 to 3.10 that is here: by PATH, or beside others where pyenv puts them."""
    for minor in (8, 9, 10):
        beside = sorted(
            Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(
                f"versions/3.{minor}.*/bin/python"
            )
        )
        for path in (shutil.which(f"python3.{minor}"), *map(str, beside)):
            if (
                path
                and subprocess.run([path, "-c", "import json"], capture_output=True, check=False).returncode
                == 0
            ):
                return 3, minor, path
    return None


def test_there_are_files_to_look_at() -> None:
    assert {"plan.py", "wg_instance.py", "desired.py"} <= {path.name for path in NODE_FILES}


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=OLDEST)


NEWER_METHODS = re.compile(
    r"\.(removeprefix|removesuffix|is_relative_to)\(|functools\.cache\b|\bimport UTC\b"
)


def evaluated_types(tree: ast.Module) -> list[str]:
    """Types outside of annotations, as in ``Pair = tuple[int, int]``: 3.8 stumbles over them at import."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    return [
        ast.unparse(node)
        for value in (*values, *bases)
        for node in ast.walk(value)
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value) in ("list", "dict", "set", "frozenset", "tuple", "type")
        )
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and "None" in ast.unparse(node))
    ]


def body(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: path.name)
def test_nothing_newer_than_python_3_8_is_used(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "from __future__ import annotations" in text or path.parent.name == "modules" or not body(text)
    assert NEWER_METHODS.search(text) is None
    assert evaluated_types(ast.parse(text)) == []


def test_the_test_above_finds_what_it_is_for() -> None:
    found = evaluated_types(
        ast.parse("A = tuple[int, int]\nB = int | None\nC: list[int] = []\nD = Tuple[int]\n")
    )
    assert found == ["tuple[int, int]", "int | None"]


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: path.name)
def test_only_the_standard_library_and_ansible_are_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(
                ("ansible_collections.vpnfleet.wireguard.plugins.module_utils", "ansible.module_utils.")
            ), name


def test_an_old_python_loads_and_runs_it(tmp_path: Path) -> None:
    """By the oldest one that is here. Where there is none, the one that runs this test loads it without Ansible at
    least, and the tests above look at the syntax."""
    _major, _minor, python = old_python() or (*sys.version_info[:2], sys.executable)
    (tmp_path / "ansible_collections" / "vpnfleet").mkdir(parents=True)
    (tmp_path / "ansible_collections" / "vpnfleet" / "wireguard").symlink_to(COLLECTION)
    names = [
        ".".join(path.relative_to(MODULE_UTILS).with_suffix("").parts)
        for path in NODE_FILES
        if path.is_relative_to(MODULE_UTILS) and path.name != "__init__.py"
    ]
    done = subprocess.run(
        [python, "-S", "-c", IMPORT_ALL, *names],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.endswith(" steps\n")
