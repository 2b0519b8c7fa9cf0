"""playbooks/site.yml and the role instance over SSH, from variables as an operator writes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.fleet import ROOT, Lab
from tests.lab.node import Node

Variables = dict[str, Any]

_SITE = ROOT / "playbooks" / "site.yml"
_EXAMPLE = ROOT / "inventories" / "variables"

#: Every secret that a test made; none may be in any output.
_secrets: set[str] = set()


@dataclass(frozen=True)
class Run:
    """How a playbook ended: its exit code, its output, and by node how many tasks changed something."""

    code: int
    output: str
    changed: dict[str, int]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Lab]:
    """Two nodes that are prepared, and node3, which no test prepares."""
    with Lab(name=f"site{os.getpid()}", nodes=3, devices=0) as lab:
        yield lab


@pytest.fixture(scope="module")
def inventory(fleet: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's hosts.yml; node1 and node2 are prepared."""
    hosts = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    shutil.copy(fleet.inventory, hosts)
    describe(hosts)
    assert site(fleet, hosts, "--limit", "node1,node2", "--tags", "node").code == 0
    return hosts


@pytest.fixture(autouse=True)
def _nodes_without_instances(fleet: Lab) -> Iterator[None]:
    yield
    for node in fleet.nodes[:2]:
        for name in interfaces(node):
            node.run(["ip", "link", "delete", name])
        node.run(["find", "/etc/wireguard", "-type", "f", "-delete"])


# -- converging


def test_foreseen_done_and_done_once(fleet: Lab, inventory: Path) -> None:
    describe(inventory, node1=[instance(1), instance(2)], node2=[instance(1)])

    foreseen = converge(fleet, inventory, "--check", "--diff", "-vvv")
    assert interfaces(fleet.nodes[0]) == []
    done = converge(fleet, inventory, "--diff", "-vvv")

    assert foreseen.changed == done.changed == {"node1": 1, "node2": 1}
    assert [interfaces(node) for node in fleet.nodes[:2]] == [["wg1", "wg2"], ["wg1"]]
    assert len(peers(fleet.nodes[0], "wg2")) == 2
    assert "+peer: " in foreseen.output
    assert converge(fleet, inventory).changed == {"node1": 0, "node2": 0}
    assert converge(fleet, inventory, "--check").changed == {"node1": 0, "node2": 0}


def test_a_server_with_nothing_on_it_can_be_looked_at(fleet: Lab, inventory: Path) -> None:
    node = fleet.nodes[2]
    node.run(["rm", "-f", "/usr/bin/wg", "/usr/bin/wg-quick", "/usr/sbin/nft"])
    describe(inventory, node3=[instance(1)])

    foreseen = site(fleet, inventory, "--limit", "node3", "--check", "--diff")

    assert foreseen.code == 0, foreseen.output
    assert foreseen.changed["node3"] > 1
    assert "ListenPort = 51821" in foreseen.output
    assert node.run(["ls", "/etc/wireguard"]).stdout == ""


def test_tags_take_one_of_the_two(fleet: Lab, inventory: Path) -> None:
    node = fleet.nodes[0]
    node.run(["nft", "delete", "table", "inet", "vpnfleet"])
    describe(inventory, node1=[instance(1)])

    assert converge(fleet, inventory, "--limit", "node1", "--tags", "instance").changed == {"node1": 1}
    assert node.run(["nft", "list", "tables"]).stdout == ""
    describe(inventory, node1=[instance(1), instance(2)])
    assert converge(fleet, inventory, "--limit", "node1", "--tags", "node").changed == {"node1": 1}
    assert node.run(["nft", "list", "tables"]).stdout == "table inet vpnfleet\n"
    assert interfaces(node) == ["wg1"]


# -- what is left out


def test_nothing_is_removed_by_leaving_it_out(fleet: Lab, inventory: Path) -> None:
    """A node by --limit, an instance or the whole list, an instance's peers: all of it runs on."""
    first, second = instance(1), instance(2)
    describe(inventory, node1=[first, second], node2=[first])
    converge(fleet, inventory)
    before = [dump(node) for node in fleet.nodes[:2]]

    second_without_peers = {key: value for key, value in second.items() if key != "peers"}
    describe(inventory, node1=[second_without_peers])
    assert converge(fleet, inventory, "--limit", "node1").changed == {"node1": 0}
    assert converge(fleet, inventory).changed == {"node1": 0, "node2": 0}
    describe(inventory)
    assert converge(fleet, inventory).changed == {"node1": 0, "node2": 0}

    assert [dump(node) for node in fleet.nodes[:2]] == before


def test_a_peer_that_is_left_out_is_removed(fleet: Lab, inventory: Path) -> None:
    wanted = instance(1)
    describe(inventory, node1=[wanted])
    converge(fleet, inventory)
    kept = wanted["peers"][1]["public_key"]
    describe(inventory, node1=[{**wanted, "peers": wanted["peers"][1:]}])

    assert converge(fleet, inventory, "--extra-vars", "wireguard_purge_peers=false").changed["node1"] == 0
    assert converge(fleet, inventory).changed["node1"] == 1

    assert peers(fleet.nodes[0], "wg1") == [kept]


@pytest.mark.parametrize("state", ["disconnected", "absent"])
def test_an_instance_goes_when_it_is_said_so(fleet: Lab, inventory: Path, state: str) -> None:
    describe(inventory, node1=[instance(1), instance(2)])
    converge(fleet, inventory)
    other = peers(fleet.nodes[0], "wg2")
    describe(inventory, node1=[{"name": "wg1", "state": state}])

    assert converge(fleet, inventory).changed["node1"] == 1

    assert interfaces(fleet.nodes[0]) == ["wg2"]
    assert fleet.nodes[0].run(["ls", "/etc/wireguard"]).stdout.split() == ["wg2.conf"]
    assert peers(fleet.nodes[0], "wg2") == other
    assert converge(fleet, inventory).changed["node1"] == 0


# -- what cannot be


def test_too_many_removals_hold_up_nobody_else(fleet: Lab, inventory: Path) -> None:
    first = instance(1)
    describe(inventory, node1=[first], node2=[first])
    converge(fleet, inventory)
    describe(
        inventory, node1=[{**first, "peers": []}, instance(2)], node2=[{**first, "peers": []}, instance(3)]
    )
    before = peers(fleet.nodes[0], "wg1")

    refused = site(fleet, inventory, "--limit", "node1,node2", "--extra-vars", "wireguard_max_removals=1")

    assert refused.code == 2
    assert "2 of 2 peers would be removed from wg1, 1 are allowed" in flat(refused.output)
    assert peers(fleet.nodes[0], "wg1") == before
    assert [interfaces(node) for node in fleet.nodes[:2]] == [["wg1", "wg2"], ["wg1", "wg3"]]
    assert site(fleet, inventory, "--limit", "node1").code == 2
    assert converge(fleet, inventory, "--extra-vars", '{"wireguard_max_removals": 2}').changed == {
        "node1": 1,
        "node2": 1,
    }
    assert peers(fleet.nodes[0], "wg1") == []


def test_a_dead_node_does_not_hold_up_the_others(fleet: Lab, inventory: Path) -> None:
    describe(inventory, node1=[instance(1)], node2=[instance(1)])
    fleet.nodes[1].kill()
    try:
        done = site(fleet, inventory, "--limit", "node1,node2")
    finally:
        fleet.nodes[1].boot()

    assert done.code == 4
    assert re.search(r"^node2 .* unreachable=1 ", done.output, re.MULTILINE), done.output
    assert done.changed["node1"] == 1
    assert interfaces(fleet.nodes[0]) == ["wg1"]


def test_two_places_that_describe_the_instances_are_refused(fleet: Lab, inventory: Path) -> None:
    describe(inventory, node1=[instance(1)])

    refused = site(
        fleet, inventory, "--limit", "node1", "--extra-vars", "wireguard_instances_src=somewhere.yml"
    )

    assert refused.code == 2
    assert "wireguard_instances and wireguard_instances_src are both set" in flat(refused.output)
    assert interfaces(fleet.nodes[0]) == []


def test_a_secret_in_the_wrong_place_is_not_printed(fleet: Lab, inventory: Path) -> None:
    key = secret("genkey")
    for wrong in ([key], [{"name": "wg1", "private_key": [key]}], [{"name": "wg1", "private_kye": key}], key):
        describe(inventory, node1=wrong)
        assert site(fleet, inventory, "--limit", "node1", "--tags", "instance", "-vvv").code == 2


# -- where the variables come from


def test_a_file_is_read_as_data(fleet: Lab, inventory: Path) -> None:
    """Encrypted or not, with what looks like a template in it."""
    mark = inventory.parent / "executed"
    trap = "{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}"
    wanted = instance(1)
    wanted["peers"][0]["name"] = trap
    src = inventory.parent / "node1-instances.yml"
    src.write_text(yaml.safe_dump({"wireguard_instances": [wanted]}), encoding="utf-8")
    describe(inventory)
    arguments = [
        "--limit",
        "node1",
        "--extra-vars",
        "wireguard_instances_src={{ inventory_dir }}/" + src.name,
    ]

    assert converge(fleet, inventory, *arguments).changed == {"node1": 1}
    password = inventory.parent / "password"
    encrypt(src, password)
    assert wanted["private_key"] not in src.read_text(encoding="utf-8")
    assert converge(fleet, inventory, *arguments, "--vault-password-file", str(password)).changed == {
        "node1": 0
    }

    assert len(peers(fleet.nodes[0], "wg1")) == 2
    assert not mark.exists()


def test_the_result_tells_public_keys(fleet: Lab, inventory: Path) -> None:
    """A key made on the node: what the customer needs of it is in instance_result."""
    describe(inventory, node1=[{"name": "wg1", "addresses": ["10.71.1.1/24"]}])
    playbook = inventory.parent / "result.yml"
    playbook.write_text(
        "- hosts: node1\n"
        "  gather_facts: false\n"
        "  roles: [vpnfleet.wireguard.instance]\n"
        "  post_tasks:\n"
        "    - ansible.builtin.debug:\n"
        "        msg: key {{ instance_result.instances[0].public_key }}\n",
        encoding="utf-8",
    )

    run = site(fleet, inventory, playbook=playbook)

    assert run.code == 0, run.output
    public_key = fleet.nodes[0].run(["wg", "show", "wg1", "public-key"]).stdout.strip()
    assert f"key {public_key}" in run.output


def test_the_example_works(fleet: Lab, tmp_path: Path) -> None:
    """Filled in and encrypted as its README says, with the lab's nodes in the place of its own."""
    mine = tmp_path / "mine"
    shutil.copytree(_EXAMPLE, mine)
    password = tmp_path / "password"
    for example in mine.glob("host_vars/*/vault.yml.example"):
        names = yaml.safe_load(example.read_text(encoding="utf-8"))
        keys = {name: secret("genpsk" if name.endswith("preshared_key") else "genkey") for name in names}
        vault = example.with_suffix("")
        vault.write_text(yaml.safe_dump(keys), encoding="utf-8")
        encrypt(vault, password)
    given = yaml.safe_load(fleet.inventory.read_text(encoding="utf-8"))["nodes"]
    names = yaml.safe_load((mine / "hosts.yml").read_text(encoding="utf-8"))["nodes"]["hosts"]
    hosts = dict(zip(names, given["hosts"].values(), strict=False))
    lab_hosts = tmp_path / "lab.yml"
    lab_hosts.write_text(
        yaml.safe_dump(
            {"nodes": {"hosts": {name: {**given["vars"], **host} for name, host in hosts.items()}}}
        ),
        encoding="utf-8",
    )
    arguments = ["--inventory", str(lab_hosts), "--vault-password-file", str(password)]

    done = site(fleet, mine / "hosts.yml", *arguments)

    assert done.code == 0, done.output
    assert [interfaces(node) for node in fleet.nodes[:2]] == [["wg7"], ["wg8", "wg9"]]
    assert len(peers(fleet.nodes[0], "wg7")) == 2
    again = site(fleet, mine / "hosts.yml", *arguments)
    assert again.changed == {"de1.example.com": 0, "nl1.example.com": 0}


# -- how it is done


def instance(number: int) -> Variables:
    """wg<number> with two peers, as in `wireguard_instances`."""
    return {
        "name": f"wg{number}",
        "private_key": secret("genkey"),
        "listen_port": 51820 + number,
        "addresses": [f"10.71.{number}.1/24", f"fd71:0:0:{number}::1/64"],
        "peers": [
            {
                "public_key": public_key(secret("genkey")),
                "preshared_key": secret("genpsk"),
                "allowed_ips": [f"10.71.{number}.{host}/32", f"fd71:0:0:{number}::{host}/128"],
            }
            for host in (2, 3)
        ],
    }


def describe(inventory: Path, **instances: object) -> None:
    """Write the variables of the nodes; a node that is not named has none."""
    directory = inventory.parent / "host_vars"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for node, wanted in instances.items():
        (directory / f"{node}.yml").write_text(
            yaml.safe_dump({"wireguard_instances": wanted}), encoding="utf-8"
        )


def site(lab: Lab, inventory: Path, *arguments: str, playbook: Path = _SITE) -> Run:
    """Run the playbook; no secret may be in what it says."""
    command = [program("ansible-playbook"), "--inventory", str(inventory), *arguments, str(playbook)]
    done = subprocess.run(
        command, env=lab.ansible_env(), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + done.stderr
    assert not [found for found in _secrets if found in output]
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", done.stdout, re.MULTILINE)
    return Run(done.returncode, output, {node: int(changed) for node, changed in recap})


def converge(lab: Lab, inventory: Path, *arguments: str) -> Run:
    """The same, where it has to succeed; on node1 and node2, unless `arguments` limit it further."""
    limit = [] if "--limit" in arguments else ["--limit", "node1,node2"]
    run = site(lab, inventory, *limit, *arguments)
    assert run.code == 0, run.output
    return run


def program(name: str) -> str:
    """A program of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def encrypt(path: Path, password: Path) -> None:
    """Encrypt a file by ansible-vault, with the password in `password`."""
    password.write_text("correct horse\n", encoding="utf-8")
    command = [program("ansible-vault"), "encrypt", "--vault-password-file", str(password), str(path)]
    subprocess.run(command, check=True, capture_output=True)


def secret(kind: str) -> str:
    """A fresh private or preshared key."""
    made = subprocess.run(["wg", kind], check=True, capture_output=True, text=True).stdout.strip()
    _secrets.add(made)
    return made


def public_key(private: str) -> str:
    return subprocess.run(
        ["wg", "pubkey"], check=True, capture_output=True, text=True, input=private
    ).stdout.strip()


def interfaces(node: Node) -> list[str]:
    return sorted(node.run(["wg", "show", "interfaces"]).stdout.split())


def peers(node: Node, name: str) -> list[str]:
    return sorted(node.run(["wg", "show", name, "peers"]).stdout.split())


def dump(node: Node) -> list[str]:
    """All instances with their peers, and the files."""
    files = node.run(["sh", "-c", "sha256sum /etc/wireguard/*"]).stdout.splitlines()
    links = json.loads(node.run(["ip", "-json", "address", "show"]).stdout)
    numbers = [f"{link['ifname']} {link['ifindex']}" for link in links]
    return sorted([*node.run(["wg", "show", "all", "dump"]).stdout.splitlines(), *files, *numbers])


def flat(output: str) -> str:
    """Ansible's output without the line breaks that depend on a text's length."""
    return re.sub(r"\s+", " ", output)
