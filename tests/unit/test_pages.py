"""What the pages tell people to type is there: targets of make, playbooks, variables, modules and roles, files."""

from __future__ import annotations

import re

import pytest

from api_shim.settings import Settings
from tests.checkout import ROOT

COLLECTION = ROOT / "collection"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "collection/README.md",
        "collection/roles/*/README.md",
        "inventories/*/*.md",
    )
    for path in ROOT.glob(pattern)
)
#: What is in a block or between ticks: prose may well "make a key".
CODE = re.compile(r"```.*?^\s*```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
MAKE = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
VARIABLE = re.compile(r"\bVPNFLEET_[A-Z_]*[A-Z]\b")


def variables() -> set[str]:
    """The variables of the environment that anything reads: the settings, and what is spelled out in the code."""
    found = {f"VPNFLEET_{name.upper()}" for name in Settings.model_fields}
    for folder in ("api_shim", "collection", "playbooks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yml", ".j2", ".sh"):
                found.update(VARIABLE.findall(path.read_text(encoding="utf-8")))
    return found


def names() -> set[str]:
    """What `vpnfleet.wireguard.` may be followed by: plugins of all kinds, playbooks, and roles."""
    files = (
        *COLLECTION.glob("plugins/*/*.py"),
        *COLLECTION.glob("playbooks/*.yml"),
        *COLLECTION.glob("roles/*"),
    )
    return {path.stem for path in files}


KNOWN = {
    "make": (
        re.compile(r"(?:^|`|&& ) *make ([a-z][a-z-]*)", re.MULTILINE),
        set(MAKE.findall((ROOT / "Makefile").read_text())),
    ),
    "variable": (re.compile(rf"({VARIABLE.pattern})"), variables()),
    "playbook": (
        re.compile(r"\bplaybooks/(\w+)\.yml"),
        {path.stem for path in ROOT.glob("playbooks/*.yml")},
    ),
    "name": (re.compile(r"\bvpnfleet\.wireguard\.(?!plugins\.)(\w+)"), names()),
}
#: What CONTRIBUTING.md has its reader make.
MADE_THERE = {"wg_ports", "login_notice"}


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/registry.md", "docs/first_hour/operator.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    code = "\n".join(CODE.findall((ROOT / page).read_text(encoding="utf-8")))
    for kind, (pattern, known) in KNOWN.items():
        missing = set(pattern.findall(code)) - known
        if page == "CONTRIBUTING.md":
            missing -= MADE_THERE
        assert not missing, f"{page} names a {kind} that is not there: {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_links_lead_to_files(page: str) -> None:
    text = re.sub(
        r"```.*?^\s*```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_a_name_that_is_not_there_is_found() -> None:
    wrong = {"make": "make everything", "variable": "VPNFLEET_NOTHING", "playbook": "playbooks/no.yml"}
    for kind, text in wrong.items():
        pattern, known = KNOWN[kind]
        assert set(pattern.findall(text)) - known


def test_the_readmes_extra_vars_are_those_that_playbooks_tell_of() -> None:
    """At their top, or in the documentation of the role that they send the reader to."""
    rows = re.findall(r"^\| `(\w+)\.yml` \| ([^|]*) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 11
    for playbook, cell in rows:
        lines = (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8").splitlines()
        told = "\n".join(line for line in lines if line.startswith("#"))
        if f"ansible-doc -t role vpnfleet.wireguard.{playbook}" in told:
            told += (COLLECTION / "roles" / playbook / "meta/argument_specs.yml").read_text(encoding="utf-8")
        for variable in re.findall(r"`(\w+)`", cell):
            assert re.search(rf"\b{variable}\b", told), f"{playbook}.yml does not tell of {variable}"
