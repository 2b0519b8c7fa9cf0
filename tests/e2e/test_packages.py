"""What `make dist` builds, installed away from the checkout, does what the checkout does.

In one virtual environment, which begins with exactly what an execution environment of AWX gets: ansible-core,
ansible-runner and what the collection lists in meta/execution-environment.yml. The wheel comes into the same one,
without an index: pip refuses it there when the list lacks anything that the wheel needs.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT
from tests.demo.fleet import Fleet
from tests.demo.playbook import Installed, Operator
from tests.e2e.conftest import FreshLab
from tests.e2e.demo_run import check_every_step
from tests.packages import (
    build_tarball,
    build_wheel,
    empty_environment,
    pip_install,
    run,
    tried_versions,
)
from tests.serve import process

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass(frozen=True)
class Environment:
    """An environment, the folder of collections beside it, and the versions that we have tried."""

    python: Path
    collections: Path
    tried: Path

    def program(self, name: str) -> Path:
        """One of its programs."""
        return self.python.with_name(name)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With the tarball's collection, and what its list names."""
    home = tmp_path_factory.mktemp("packages")
    tarball = build_tarball(home / "dist")
    made = Environment(empty_environment(home / "env"), home / "collections", home / "tried.txt")
    made.tried.write_text("\n".join(tried_versions()), encoding="utf-8")
    # The base: how docs/awx.md has ansible-builder make it.
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["api"]]
    base = [each for each in wanted if re.match("ansible-(core|runner)", each)]
    assert len(base) == 2
    pip_install(made.python, "--constraint", made.tried, *base)
    galaxy: list[str | Path] = [made.program("ansible-galaxy"), "collection", "install", "--offline"]
    run([*galaxy, "--collections-path", made.collections, tarball], cwd=home)
    collection = made.collections / "ansible_collections/vpnfleet/wireguard"
    listed = yaml.safe_load((collection / "meta/execution-environment.yml").read_text(encoding="utf-8"))
    python_list = collection / listed["dependencies"]["python"]
    pip_install(made.python, "--constraint", made.tried, "--requirement", python_list)
    assert (collection / listed["dependencies"]["system"]).is_file()
    return made


@pytest.fixture(scope="module")
def with_wheel(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with the wheel, and without the collections beside it."""
    pip_install(environment.python, "--no-index", build_wheel(tmp_path_factory.mktemp("wheel")))
    return environment


def test_the_tarball_runs_the_demo_in_an_execution_environment(
    environment: Environment, tmp_path: Path
) -> None:
    check_every_step(
        tmp_path,
        f"sqlite:///{tmp_path}/registry.db",
        *("--ansible-playbook", str(environment.program("ansible-playbook"))),
        *("--collections", str(environment.collections)),
    )


def test_the_wheel_runs_the_demo(with_wheel: Environment, tmp_path: Path, postgres_url: str) -> None:
    check_every_step(
        tmp_path,
        postgres_url,
        *("--ansible-playbook", str(with_wheel.program("ansible-playbook"))),
        *("--database", postgres_url),
    )


@pytest.fixture
def served(with_wheel: Environment, fresh_lab: FreshLab, tmp_path: Path) -> Iterator[tuple[str, str, Fleet]]:
    """The wheel's HTTP interface on a lab: its address, a key for all, and the fleet."""
    pip_install(with_wheel.python, "--constraint", with_wheel.tried, *PROJECT["optional-dependencies"]["api"])
    fleet = Fleet(fresh_lab(nodes=2), tmp_path)
    fleet.write()
    installed = Installed(with_wheel.program("ansible-playbook"))
    operator = Operator(fleet.inventory, fleet.environment(), tmp_path, lambda _task: None, installed)
    operator.run("nodes", "-e", f"nodes_file={shlex.quote(str(fleet.nodes))}")
    variables = {
        **installed.environment(fleet.environment()),
        "VPNFLEET_INVENTORY": str(fleet.inventory),
        "VPNFLEET_PORT": "0",
        "VPNFLEET_WAIT_SECONDS": "60",
        "VPNFLEET_LOG_FORMAT": "text",
    }
    where = {"python": with_wheel.python, "folder": tmp_path}
    key = process.make_key(variables, "ops-1", "ops", **where)
    server, url = process.start(variables, tmp_path / "server.log", **where)
    yield url, key, fleet
    server.terminate()
    server.wait()


def test_the_wheel_serves_http(served: tuple[str, str, Fleet], tmp_path: Path) -> None:
    url, key, fleet = served
    body = {"name": "user@example.com", "node": "node1", "peers": [{"name": "phone"}]}
    call = urllib.request.Request(  # noqa: S310 # our own server
        f"{url}/api/instances",
        json.dumps(body).encode(),
        {"X-API-Key": key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(call, timeout=120) as answer:  # noqa: S310
        made = json.load(answer)
    assert answer.status == 201, (tmp_path / "server.log").read_text(encoding="utf-8")
    assert fleet.tables_with("user@example.com") != []
    assert made["node"] == "node1", made
