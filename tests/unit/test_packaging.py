"""The packages hold what they should, and the collection is found where users look for it: in a checkout and installed.

That what is installed does its work shows tests/e2e/test_packages.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT
from tests.packages import build_tarball, build_wheel, empty_environment, pip_install, run

COLLECTION = ROOT / "collection"
GALAXY = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IN_WHEEL = "ansible_collections/vpnfleet/wireguard/"
MODULES = [
    "operation_begin",
    "operation_converge",
    "operation_drift",
    "operation_report",
    "registry_agent",
    "registry_nodes",
    "registry_schema",
    "wg_drift",
    "wg_info",
    "wg_instance",
    "wg_peer",
]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def committed_files() -> set[str]:
    """What git has or would add under collection/, as paths in it."""
    return git_files(COLLECTION)


def git_files(folder: Path) -> set[str]:
    """The same of any folder."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=folder)
    return {path for path in listed.split("\0") if path and (folder / path).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tarball(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that the wheel was installed into by pip, with this one's ansible-core.

    ansible-core comes by a path file, so that nothing is downloaded.
    """
    home = tmp_path_factory.mktemp("installed")
    python = empty_environment(home / "env")
    pip_install(python, "--no-index", "--no-deps", wheel)
    purelib = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=home).strip()
    Path(purelib, "ansible-core.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def ansible(python: Path, program: str, *arguments: str, cwd: Path) -> str:
    """Runs an Ansible program as a user would who has no configuration of any kind."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C.UTF-8"}
    module = {"ansible-doc": "doc", "ansible-galaxy": "galaxy"}[program]
    return run([python, "-m", f"ansible.cli.{module}", *arguments], cwd=cwd, env=env)


def test_wheel_carries_the_whole_collection_and_the_http_interface(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    project = ["ansible.cfg", *(f"playbooks/{path}" for path in git_files(ROOT / "playbooks"))]
    project += [f"inventories/production/{path}" for path in git_files(ROOT / "inventories/production")]
    assert names == {
        *(IN_WHEEL + path for path in committed_files()),
        *(f"api_shim/{path}" for path in git_files(ROOT / "api_shim")),
        *(f"api_shim/project/{path}" for path in project),
    }


def test_tarball_carries_the_whole_collection_as_files(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive.getmembers() if not member.isdir()}
        playbook = archive.extractfile("playbooks/provision.yml")
        assert playbook is not None
        assert playbook.read() == (ROOT / "playbooks/provision.yml").read_bytes()
    assert all(member.isfile() for member in members.values())
    made = {"MANIFEST.json", "FILES.json"}
    # Galaxy's manifest takes its place.
    assert members.keys() - made == committed_files() - {"galaxy.yml"}


@pytest.mark.parametrize("build", [build_wheel, build_tarball])
def test_packages_are_the_same_whenever_they_are_built(
    build: Callable[[Path], Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before: Path = request.getfixturevalue(build.__name__.removeprefix("build_"))
    assert build(tmp_path).read_bytes() == before.read_bytes()


def test_the_collections_playbooks_are_links_to_those_of_the_checkout() -> None:
    links = {path.name: path for path in (COLLECTION / "playbooks").iterdir()}
    assert links.keys() == {path.name for path in (ROOT / "playbooks").iterdir()}
    for name, link in links.items():
        assert str(link.readlink()) == f"../../playbooks/{name}"


def test_an_execution_environment_gets_what_the_wheel_needs_but_for_ansible() -> None:
    definition = yaml.safe_load((COLLECTION / "meta/execution-environment.yml").read_text())
    listed = (COLLECTION / definition["dependencies"]["python"]).read_text().splitlines()
    wanted = [each for each in PROJECT["dependencies"] if not each.startswith("ansible-core")]
    assert [line for line in listed if not line.startswith("#")] == wanted


def test_wheel_has_the_collections_version_and_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nVersion: {GALAXY['version']}\n" in metadata
    assert "\nLicense-Expression: GPL-3.0-or-later\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


@pytest.mark.parametrize("page", ["README.md", "collection/README.md"])
def test_the_pages_name_the_packages_of_this_version(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"vpnfleet-(?:wireguard-)?(\d+\.\d+\.\d+)", text)
    assert set(named) == {GALAXY["version"]}


def test_installed_modules_are_documented(installed: Path, tmp_path: Path) -> None:
    names = [f"vpnfleet.wireguard.{module}" for module in MODULES]
    documents = json.loads(ansible(installed, "ansible-doc", "--json", *names, cwd=tmp_path))
    assert sorted(documents) == names
    for document in documents.values():
        assert Path(document["doc"]["filename"]).is_relative_to(installed.parents[1])
        assert document["examples"]
        assert document["return"]


def test_installed_collection_is_listed_with_its_version(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(
        ansible(installed, "ansible-galaxy", "collection", "list", "--format", "json", cwd=tmp_path)
    )
    versions = {
        name: entry["version"]
        for path, collections in listed.items()
        if Path(path).is_relative_to(installed.parents[1])
        for name, entry in collections.items()
    }
    assert versions == {"vpnfleet.wireguard": GALAXY["version"]}


def test_checkout_is_found_through_the_committed_link() -> None:
    link = ROOT / "collections/ansible_collections/vpnfleet/wireguard"
    # A link to an absolute path would work on one machine only.
    assert str(link.readlink()) == "../../../collection"
    listed = run(
        [sys.executable, "-m", "ansible.cli.doc", "--list", "--json", "vpnfleet.wireguard"], cwd=ROOT
    )
    assert sorted(json.loads(listed)) == [f"vpnfleet.wireguard.{module}" for module in MODULES]


def test_checkout_and_collection_carry_the_same_license() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert text == (COLLECTION / "LICENSE").read_bytes()
    assert b"GNU GENERAL PUBLIC LICENSE\n                       Version 3" in text
    assert GALAXY["license_file"] == "LICENSE"


def test_the_supported_ansible_is_said_once_in_each_place() -> None:
    (dependency,) = (each for each in PROJECT["dependencies"] if each.startswith("ansible-core"))
    runtime = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())
    assert dependency == "ansible-core>=2.19,<2.22"
    assert runtime["requires_ansible"] == ">=2.19.0,<2.22"


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pinned_hashed_and_name_no_registry(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize(
    "path", [path for path in REQUIREMENTS if path.name != "bench.txt"], ids=lambda path: path.name
)
def test_requirements_pin_ansible_for_both_ends_of_the_supported_range(path: Path) -> None:
    pins = re.findall(
        r"^ansible-core==(\d+\.\d+)\S* ; python_full_version (\S+ '[\d.]+')", path.read_text(), re.M
    )
    assert pins == [("2.19", "< '3.12'"), ("2.21", ">= '3.12'")]


def test_running_and_developing_use_the_same_pins() -> None:
    def pins(name: str) -> set[str]:
        return set(
            re.findall(r"^[a-z0-9-]+==[^ ]+", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
        )

    assert pins("run.txt") < pins("dev.txt")
