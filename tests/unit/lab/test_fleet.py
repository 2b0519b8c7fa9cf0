"""What a lab refuses before it touches the machine, and what it tells Ansible."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.lab.__main__ import main
from tests.lab.addresses import DEFAULT_BLOCK, Addresses
from tests.lab.errors import LabError
from tests.lab.fleet import ROOT, Lab
from tests.lab.inventory import inventory_text
from tests.lab.node import Node


@pytest.mark.parametrize("name", ["", "Lab", "1st", "a_b", "a--b", "a-", "thirteen-char", "a/b", "a\n"])
def test_names_that_make_no_link_name_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="lab name"):
        Lab(name)


@pytest.mark.parametrize(("nodes", "devices"), [(-1, 0), (251, 0), (0, -1), (0, 251)])
def test_sizes_beyond_the_address_plan_are_refused(nodes: int, devices: int) -> None:
    with pytest.raises(LabError, match="0 to 250"):
        Lab("lab", nodes, devices)


@pytest.mark.parametrize(
    "command", [["up"], ["down"], ["status"], ["exec", "node1", "true"], ["shell", "node1"]]
)
def test_without_root_one_line_says_so(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("lab: the lab needs root")
    assert said.err.count("\n") == 1


def test_without_root_up_and_down_do_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lab = Lab("unit", state_dir=tmp_path / "state")
    for step in (lab.up, lab.down):
        with pytest.raises(LabError, match="needs root"):
            step()
    assert list(tmp_path.iterdir()) == []


def test_the_committed_inventory_is_that_of_the_default_lab() -> None:
    state = "{{ inventory_dir }}/../../var/lab/lab"
    plan = Addresses(DEFAULT_BLOCK)
    nodes = [Node("lab", f"node{number}", *plan.node(number), plan) for number in (1, 2)]
    generated = inventory_text(nodes, Path(state, "ssh_key"), Path(state, "known_hosts"))
    committed = ROOT / "inventories" / "lab" / "hosts.yml"
    assert yaml.safe_load(committed.read_text(encoding="utf-8")) == yaml.safe_load(generated)


def test_an_inventory_without_nodes_has_the_group_all_the_same() -> None:
    assert yaml.safe_load(inventory_text([], Path("/key"), Path("/known")))["nodes"]["hosts"] == {}
