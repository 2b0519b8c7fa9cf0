"""The role api_shim: what it knows of the server's settings, and how it packs a release."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from api_shim.settings import Settings
from tests.checkout import ROOT

ROLE = ROOT / "collection" / "roles" / "api_shim"
# The role says these itself.
ITS_OWN = {"host", "port", "project"}


def read(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLE / path).read_text(encoding="utf-8"))
    return found


def pack(folder: Path, archive: Path, *paths: str) -> str:
    argv = [sys.executable, str(ROLE / "files" / "pack.py"), str(folder), str(archive), *paths]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_it_knows_every_setting() -> None:
    secret = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    names = read("vars/main.yml")
    assert set(names["__api_shim_secret_names"]) == secret
    assert set(names["__api_shim_setting_names"]) == set(Settings.model_fields) - secret - ITS_OWN


def test_every_variable_is_documented_and_has_its_default() -> None:
    options = read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read("defaults/main.yml")
    assert set(options) == set(defaults)
    documented = {name: option["default"] for name, option in options.items() if "default" in option}
    assert documented == {name: defaults[name] for name in documented}
    readme = (ROLE / "README.md").read_text(encoding="utf-8")
    assert [name for name in options if f"`{name}`" not in readme] == []


def test_all_that_it_deploys_is_there() -> None:
    assert [path for path in read("vars/main.yml")["__api_shim_paths"] if not (ROOT / path).exists()] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "code" / "__pycache__").mkdir(parents=True)
    (made / "code" / "a.py").write_text("a", encoding="utf-8")
    (made / "code" / "run").write_text("#!/bin/sh\n", encoding="utf-8")
    (made / "code" / "run").chmod(0o700)
    (made / "code" / "__pycache__" / "a.pyc").write_bytes(b"")
    (made / "code" / "link").symlink_to("../elsewhere")
    (made / "left_out").write_text("x", encoding="utf-8")
    return made


def test_a_release_is_packed_with_what_belongs_to_it(folder: Path, tmp_path: Path) -> None:
    digest = pack(folder, tmp_path / "a.tar.gz", "code")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        members = {member.name: (member.mode, member.linkname, member.uid) for member in tar}
        marker = tar.extractfile("RELEASE")
        assert marker is not None
        assert marker.read().decode() == f"{digest}\n"
    assert members == {
        "code/a.py": (0o644, "", 0),
        "code/link": (0o777, "../elsewhere", 0),
        "code/run": (0o755, "", 0),
        "RELEASE": (0o644, "", 0),
    }
    assert list(members)[-1] == "RELEASE"


def test_the_same_is_packed_the_same_and_a_change_is_not(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path / "a.tar.gz", "code")
    (folder / "code" / "a.py").touch()
    assert pack(folder, tmp_path / "b.tar.gz", "code") == first
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    (folder / "code" / "run").chmod(0o600)
    assert pack(folder, tmp_path / "c.tar.gz", "code") != first


def test_a_checkout_is_packed_without_what_git_ignores(folder: Path, tmp_path: Path) -> None:
    without_git = pack(folder, tmp_path / "a.tar.gz", "code")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.pyc\nsecret\n", encoding="utf-8")
    (folder / "code" / "secret").write_text("x", encoding="utf-8")
    assert pack(folder, tmp_path / "b.tar.gz", "code") == without_git


def test_a_path_that_is_missing_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        pack(folder, tmp_path / "a.tar.gz", "code", "nothing")
    assert "has no nothing" in error.value.stderr
