"""What the two READMEs tell people to type is typed, on servers of the lab in the place of theirs.

The prose around it is followed by the tests: files get the content that the page shows, with the lab's addresses and
the lab's way to log in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT, copy_checkout
from tests.documented import code
from tests.e2e.conftest import FreshLab
from tests.lab.fleet import Lab
from tests.packages import build_tarball, build_wheel, pip_install, tried_versions

README, COLLECTION, PRODUCTION = "README.md", "collection/README.md", "inventories/production/README.md"
#: Of each page, the parts in which there is something to type.
TYPED_HERE = {
    README: ["Your first server, without a database", "A fleet from the registry", "Without a checkout"],
    COLLECTION: ["Install", "What is in it"],
}
#: `make demo` is tests/e2e/test_demo.py's, and `make test` runs this; `make serve` prints a call, which
#: tests/contract/test_serve.py types.
TYPED_ELSEWHERE = {README: ["See it", "Over HTTP"], COLLECTION: []}


def blocks(page: str, heading: str, language: str = "") -> list[str]:
    """The blocks of a language under a heading; of none: what is to be typed."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (part,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    return code(part, language)


@dataclass
class Shell:
    """Somebody's shell: a home of their own, a folder to work in, and the programs that a virtual environment has."""

    home: Path
    folder: Path
    programs: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def type(self, lines: str) -> str:
        """What is printed; each of the lines must end well."""
        kept = {
            name: value for name, value in os.environ.items() if not re.match("ANSIBLE_|VPNFLEET_|XDG_", name)
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", lines],
            cwd=self.folder,
            env={**kept, **self.variables, "HOME": str(self.home), "PATH": f"{self.programs}:{kept['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a short path: ssh keeps its sockets there."""
    with tempfile.TemporaryDirectory(prefix="vf-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def shell(home: Path, tmp_path: Path) -> Shell:
    """In a copy of the checkout, with its environment activated."""
    return Shell(home, copy_checkout(tmp_path), Path(sys.executable).parent)


def log_in_as_in_the_lab(group_vars: Path, lab: Lab) -> None:
    """What the pages have the reader adapt: how to log in."""
    known = yaml.safe_load(lab.inventory.read_text(encoding="utf-8"))["nodes"]["vars"]
    group_vars.write_text(yaml.safe_dump(known), encoding="utf-8")


def of_the_lab(text: str, lab: Lab) -> str:
    """With its addresses in the place of the page's."""
    for theirs, node in zip(("192.0.2.11", "192.0.2.21"), lab.nodes, strict=False):
        text = text.replace(theirs, node.address)
    return text


def test_all_that_is_to_be_typed_is() -> None:
    for page, here in TYPED_HERE.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
        assert sorted(one for one in headings if blocks(page, one)) == sorted(here + TYPED_ELSEWHERE[page])


def test_a_first_server_without_a_database(shell: Shell, fresh_lab: FreshLab) -> None:
    lab, part = fresh_lab(nodes=1), TYPED_HERE[README][0]
    begin, converge, ask = blocks(README, part)
    hosts, instances = blocks(README, part, "yaml")
    activate, copy = begin.splitlines()
    assert activate.startswith("make venv && source var/venv/bin/activate")  # the tests run in it
    shell.type(copy)
    mine = shell.folder / "inventories/mine"
    (mine / "hosts.yml").write_text(of_the_lab(hosts, lab), encoding="utf-8")
    log_in_as_in_the_lab(mine / "group_vars/nodes.yml", lab)
    for folder in (mine / "host_vars").iterdir():
        if folder.name != "de1.example.com":
            shutil.rmtree(folder)
    (mine / "host_vars/de1.example.com/instances.yml").write_text(instances, encoding="utf-8")
    look, _do = converge.splitlines()
    shell.type(look)
    assert lab.nodes[0].run(["wg", "show", "interfaces"]).stdout.split() == []
    shell.type(converge)
    assert re.search(r"de1\.example\.com +: ok=\d+ +changed=0 ", shell.type(converge))
    (peer,) = yaml.safe_load(instances)["wireguard_instances"][0]["peers"]
    assert lab.nodes[0].run(["wg", "show", "wg7", "peers"]).stdout.split() == [peer["public_key"]]
    told = shell.type(ask)
    key = lab.nodes[0].run(["wg", "show", "wg7", "public-key"]).stdout.strip()
    assert key in told
    assert "51827" in told


def test_a_fleet_from_the_registry(shell: Shell, fresh_lab: FreshLab) -> None:
    lab, part = fresh_lab(nodes=2), TYPED_HERE[README][1]
    (alice,) = blocks(README, part, "yaml")
    (fleet,) = blocks(PRODUCTION, "The nodes", "yaml")
    (shell.folder / "alice.yml").write_text(alice, encoding="utf-8")
    (shell.folder / "fleet.yml").write_text(of_the_lab(fleet, lab), encoding="utf-8")
    log_in_as_in_the_lab(shell.folder / "inventories/production/group_vars/nodes.yml", lab)
    (nodes,) = blocks(PRODUCTION, "The nodes")
    assert "de1.example.com" in shell.type(nodes)
    (typed,) = blocks(README, part)
    shell.type(typed)
    (then,) = blocks(PRODUCTION, "Then")
    shell.type(then)
    (peer,) = yaml.safe_load(alice)["peers"]
    assert lab.nodes[0].run(["wg", "show", "wg1", "peers"]).stdout.split() == [peer["public_key"]]


def test_without_a_checkout(home: Path, fresh_lab: FreshLab, tmp_path: Path) -> None:
    lab, part = fresh_lab(nodes=1), TYPED_HERE[README][2]
    install, wheel, run = blocks(README, part)
    env, folder = tmp_path / "env", tmp_path / "mine"
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    for made in (build_tarball(tmp_path / "tarball"), build_wheel(tmp_path / "wheel")):
        folder.mkdir(exist_ok=True)
        shutil.copy(made, folder)
    tried = tmp_path / "tried.txt"
    tried.write_text("\n".join(tried_versions()), encoding="utf-8")
    cache = Path.home() / ".cache/pip"
    shell = Shell(home, folder, env / "bin", {"PIP_CONSTRAINT": str(tried), "PIP_CACHE_DIR": str(cache)})
    pip_install(env / "bin/python", "--constraint", tried, "ansible-core")

    # The tarball, as both pages say.
    assert blocks(COLLECTION, "Install") == [install]
    shell.type(install)
    document, converge = blocks(COLLECTION, "What is in it")
    assert "listen_port" in shell.type(document)
    shutil.copytree(ROOT / "inventories", folder / "inventories")
    settings = (ROOT / "ansible.cfg").read_text(encoding="utf-8")
    for theirs, mine in (
        ("collections_path = collections", ""),
        ("inventories/lab", "inventories/production"),
    ):
        assert settings.count(theirs) == 1
        settings = settings.replace(theirs, mine)
    (folder / "ansible.cfg").write_text(settings, encoding="utf-8")
    shutil.copy(lab.inventory, folder / "inventory")
    shell.type(converge)
    log_in_as_in_the_lab(folder / "inventories/production/group_vars/nodes.yml", lab)
    node = {"name": "node1", "ansible_host": lab.nodes[0].address, "endpoint": lab.nodes[0].address}
    fleet = {"nodes": [{**node, "ip_pool_cidr": "10.64.0.0/16"}]}
    (folder / "fleet.yml").write_text(yaml.safe_dump(fleet), encoding="utf-8")
    shell.type("ansible-playbook vpnfleet.wireguard.nodes -e nodes_file=fleet.yml")
    shell.type(run)
    assert lab.nodes[0].run(["wg", "show", "interfaces"]).stdout.split() == ["wg1"]

    # The wheel, in its place.
    shutil.rmtree(home / ".ansible/collections")
    shell.type(wheel)
    assert re.search(r"node1 +: ok=\d+ +changed=0 ", shell.type(run))
    assert "serve" in shell.type("python -m api_shim --help")
