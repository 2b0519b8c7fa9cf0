"""The inventory plugin: the registry's nodes as hosts, and nothing that a row says as a template or an option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base, Node
from tests.e2e import registry_run
from tests.e2e.registry_run import Place, Run, a_key
from tests.lab.fleet import ROOT

place = registry_run.place
sqlite = registry_run.sqlite

PLUGIN = "vpnfleet.wireguard.registry"
PRODUCTION = ROOT / "inventories" / "production"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file for the plugin with nothing set."""
    return config(tmp_path)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What a template that is executed would make."""
    mark = tmp_path / "mark"
    yield mark
    assert not mark.exists()


def config(folder: Path, **options: Any) -> Path:
    path = folder / "fleet.registry.yml"
    path.write_text(yaml.safe_dump({"plugin": PLUGIN, **options}), encoding="utf-8")
    return path


def add(registry: Registry, name: str, **fields: Any) -> None:
    with registry.write() as session:
        session.add(
            Node(name=name, **{"ip_pool_cidr": "10.8.0.0/16", "ip6_pool_cidr": "fd00:8::/48", **fields})
        )


def hosts(run: Run) -> dict[str, dict[str, Any]]:
    """By host its variables."""
    assert run.code == 0, run.said
    found: dict[str, dict[str, Any]] = json.loads(run.stdout)["_meta"]["hostvars"]
    return found


def groups(run: Run) -> dict[str, list[str]]:
    """By group its hosts; without those that there always are."""
    assert run.code == 0, run.said
    found = json.loads(run.stdout)
    return {name: sorted(group["hosts"]) for name, group in found.items() if "hosts" in group}


def plain(value: Any) -> Any:
    """Without the mark that ansible-inventory sets on texts that are no templates; each must have it."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: plain(item) for key, item in value.items()}
    assert not isinstance(value, str), f"{value} may be taken for a template"
    return value


# -- what is there


def test_nodes_are_hosts_with_their_settings(place: Place, source: Path) -> None:
    registry = place.open()
    everything = {
        "ansible_host": "192.0.2.11",
        "ansible_port": 2222,
        "ansible_user": "ops",
        "ansible_python_interpreter": "/usr/bin/python3.11",
    }
    add(
        registry,
        "de1.example.com",
        **everything,
        agent_url="https://de1.example.com:8443",
        endpoint="de1.example.com",
        wg_interface="wg1",
        weight=50,
        max_peers=1000,
        country="DE",
        dns_name="de1.vpn.example.com",
        override_listen_port=40000,
        override_dns="10.8.0.1",
        override_mtu=1380,
        override_keepalive=0,
        override_endpoint_allowed_ip="0.0.0.0/0",
    )
    add(registry, "nl1.example.com", enabled=False, country="New-Land (NL)")

    run = place.inventory(source)

    found = {name: plain(variables) for name, variables in hosts(run).items()}
    assert {name: found["de1.example.com"][name] for name in everything} == everything
    assert len(found["de1.example.com"]["vpnfleet_node"].pop("id")) == 36
    assert found["de1.example.com"]["vpnfleet_node"] == {
        "name": "de1.example.com",
        "country": "DE",
        "dns_name": "de1.vpn.example.com",
        "endpoint": "de1.example.com",
        "agent_url": "https://de1.example.com:8443",
        "enabled": True,
        "weight": 50,
        "max_peers": 1000,
        "wg_interface": "wg1",
        "ip_pool_cidr": "10.8.0.0/16",
        "ip6_pool_cidr": "fd00:8::/48",
        "listen_port_base": 40000,
        "dns": "10.8.0.1",
        "mtu": 1380,
        "keepalive": 0,
        "endpoint_allowed_ip": "0.0.0.0/0",
    }
    other = found["nl1.example.com"]
    assert [name for name in everything if name in other] == []
    defaults = {"listen_port_base": 51820, "dns": None, "mtu": None, "keepalive": 25}
    assert {name: other["vpnfleet_node"][name] for name in defaults} == defaults
    assert groups(run) == {
        "nodes": ["de1.example.com", "nl1.example.com"],
        "enabled": ["de1.example.com"],
        "disabled": ["nl1.example.com"],
        "country_de": ["de1.example.com"],
        "country_new_land__nl_": ["nl1.example.com"],
    }
    assert run.stderr == ""


def test_groups_and_variables_of_ones_own(sqlite: Place) -> None:
    registry = sqlite.open()
    add(registry, "de1.example.com", country="DE", weight=0, dns_name="de1.vpn.example.com")
    add(registry, "de2.example.com", country="DE", ansible_host="192.0.2.12", override_listen_port=40000)
    add(registry, "nl1.example.com", country="NL", enabled=False)
    source = config(
        sqlite.folder,
        include_disabled=False,
        strict=True,
        groups={"reserved": "vpnfleet_node.weight == 0"},
        keyed_groups=[{"key": "vpnfleet_node.listen_port_base | string", "prefix": "port"}],
        compose={
            "ansible_host": "ansible_host | default(vpnfleet_node.dns_name)",
            "twice": "vpnfleet_node.weight * 2",
        },
    )
    run = sqlite.inventory(source)
    found = {name: plain(variables) for name, variables in hosts(run).items()}
    assert {name: one["ansible_host"] for name, one in found.items()} == {
        "de1.example.com": "de1.vpn.example.com",
        "de2.example.com": "192.0.2.12",
    }
    assert found["de2.example.com"]["twice"] == 200
    assert groups(run) == {
        "nodes": ["de1.example.com", "de2.example.com"],
        "enabled": ["de1.example.com", "de2.example.com"],
        "country_de": ["de1.example.com", "de2.example.com"],
        "reserved": ["de1.example.com"],
        "port_51820": ["de1.example.com"],
        "port_40000": ["de2.example.com"],
    }
    assert config(sqlite.folder, strict=True, groups={"x": "no_such_variable"})
    strict = sqlite.inventory(source)
    assert strict.code != 0
    assert "no_such_variable" in strict.said


def test_only_the_nodes_are_read(place: Place, source: Path) -> None:
    """Not a row of any other table: none of them is there. So it does not matter how many there are."""
    registry = place.open()
    add(registry, "de1.example.com")
    with registry.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name != "node":
                session.execute(text(f'DROP TABLE "{table.name}"'))
    run = place.inventory(source, VPNFLEET_ENCRYPTION_KEY="")  # nor is a key needed
    assert list(hosts(run)) == ["de1.example.com"]


def test_the_production_inventory(sqlite: Place) -> None:
    add(sqlite.open(), "de1.example.com", ansible_user="admin")
    add(sqlite.open(), "nl1.example.com")
    found = hosts(sqlite.inventory(PRODUCTION, VPNFLEET_DATABASE_URL=sqlite.url))
    assert found["de1.example.com"]["vpnfleet_node"]["name"] == {"__ansible_unsafe": "de1.example.com"}
    listed = sqlite.inventory(PRODUCTION, "--limit", "nl1.example.com")
    assert list(hosts(listed)) == ["nl1.example.com"]
    everyone = json.loads(listed.stdout)["nodes"]["vars"]
    assert everyone["ansible_user"] == "ops"
    assert plain(found["de1.example.com"]["ansible_user"]) == "admin"


# -- what a row says


def test_no_text_of_a_row_is_executed(place: Place, mark: Path) -> None:
    """Neither when the inventory is read, nor when a play uses the variables, nor by groups made of them."""
    registry = place.open()
    template = f"{{{{ lookup('pipe', 'touch {mark.name}') }}}}"  # short enough for any column
    # Past all checks, by whoever else writes into the database. In these, any text fits.
    texts = ("country", "dns_name", "endpoint", "agent_url", "override_dns", "override_endpoint_allowed_ip")
    add(registry, "de1.example.com", **dict.fromkeys(texts, template))
    source = config(
        place.folder,
        strict=True,
        keyed_groups=[{"key": "vpnfleet_node.country", "prefix": "c", "parent_group": "all_countries"}],
        groups={"odd": "vpnfleet_node.country is search('lookup')"},
        compose={
            "composed": "vpnfleet_node.dns_name",
            "formatted": "'<' ~ vpnfleet_node.endpoint ~ '>'",
            # What the operator writes is executed, in the folder where the mark would be.
            "own": "lookup('pipe', 'touch inventory_was_here')",
        },
    )

    run = place.inventory(source)

    found = plain(hosts(run)["de1.example.com"])
    assert found["vpnfleet_node"]["country"] == template
    assert found["composed"] == template
    assert found["formatted"] == f"<{template}>"
    assert groups(run)["odd"] == ["de1.example.com"]
    assert all(name.replace("_", "").isalnum() for name in groups(run))
    (place.folder / "play.yml").write_text(
        "- hosts: nodes\n"
        "  gather_facts: false\n"
        "  tasks:\n"
        "    - ansible.builtin.debug:\n"
        "        msg: '{{ vpnfleet_node.country }} {{ composed }} {{ hostvars[inventory_hostname].formatted }}'\n"
        "    - ansible.builtin.debug:\n"
        "        var: vpnfleet_node\n"
        "    - ansible.builtin.debug:\n"
        '        msg: \'{{ lookup("pipe", "touch play_was_here") }}\'\n',
        encoding="utf-8",
    )
    play = place.playbook_at(place.folder / "play.yml", "--inventory", str(source))
    assert play.code == 0, play.said
    assert template in play.said
    assert sorted(path.name for path in place.folder.glob("*_was_here")) == [
        "inventory_was_here",
        "play_was_here",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"ansible_host": "-oProxyCommand=touch {mark}"},
        {"ansible_user": "-oProxyCommand=touch {mark}"},
        {"ansible_python_interpreter": "/bin/sh -c 'touch {mark}' #"},
        {"ansible_host": "{{{{ lookup('pipe', 'touch {mark}') }}}}"},
        {"name": "localhost"},
        {"name": "-oProxyCommand=x"},
        {"name": "{{{{ lookup('pipe', 'touch {mark}') }}}}"},
        {"ansible_port": 0},
    ],
    ids=str,
)
def test_a_node_that_is_reached_in_an_odd_way_is_left_out(
    sqlite: Place, source: Path, mark: Path, fields: dict[str, Any]
) -> None:
    registry = sqlite.open()
    add(registry, "nl1.example.com")
    odd = {key: value.format(mark=mark) if isinstance(value, str) else value for key, value in fields.items()}
    add(registry, **{"name": "de1.example.com", **odd})
    run = sqlite.inventory(source)
    assert list(hosts(run)) == ["nl1.example.com"]
    assert "[WARNING]: A node of the registry is left out: " in run.said


# -- what is not there


def test_a_registry_without_nodes_says_what_to_do(place: Place, source: Path) -> None:
    without_schema = place.inventory(source)
    assert groups(without_schema) == {}
    assert "[WARNING]: There are no hosts: " in without_schema.said
    assert "playbooks/registry.yml" in without_schema.said or "playbooks/nodes.yml" in without_schema.said
    assert [
        path.name for path in place.folder.iterdir() if path.name.startswith("registry")
    ] == []  # nothing is made
    registry = place.open()
    without_nodes = place.inventory(source)
    assert groups(without_nodes) == {}
    assert "[WARNING]: There are no hosts: the registry has no nodes." in without_nodes.said
    assert "playbooks/nodes.yml --extra-vars nodes_file=FILE" in without_nodes.said
    with registry.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    old = place.inventory(source)
    assert groups(old) == {}
    assert "at revision 0000 and this version works with" in old.said


@pytest.mark.parametrize("where", ["environment", "option"])
def test_a_database_that_cannot_be_reached_is_an_error_without_its_password(
    tmp_path: Path, where: str
) -> None:
    url = "postgresql://fleet:hunter2@127.0.0.1:1/fleet?connect_timeout=5&options=-c%20x=hunter2"
    place = Place(url if where == "environment" else "", (a_key(),), tmp_path)
    source = config(tmp_path, **({} if where == "environment" else {"database_url": url}))
    run = place.inventory(source, "-vvvv")
    assert run.code != 0
    assert "the registry (postgresql+psycopg://fleet:***@127.0.0.1:1/fleet) cannot be used: " in run.said
    assert "hunter2" not in run.said


def test_a_missing_library_is_named(sqlite: Place, source: Path) -> None:
    missing = sqlite.folder / "missing"
    missing.mkdir()
    (missing / "sqlalchemy.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'sqlalchemy'\", name='sqlalchemy')\n", encoding="utf-8"
    )
    run = sqlite.inventory(source, PYTHONPATH=str(missing))
    assert run.code != 0
    assert "the registry needs Python's sqlalchemy on the controller: pip install vpnfleet" in run.said
    assert "Traceback" not in run.said


@pytest.mark.parametrize("name", ["registry.yml", "fleet.registry.yaml"])
def test_its_files_are_told_by_their_name(sqlite: Place, name: str) -> None:
    add(sqlite.open(), "de1.example.com")
    written = config(sqlite.folder).read_text(encoding="utf-8")
    (sqlite.folder / name).write_text(written, encoding="utf-8")
    assert list(hosts(sqlite.inventory(sqlite.folder / name))) == ["de1.example.com"]
    (sqlite.folder / "hosts.yml").write_text(written, encoding="utf-8")
    assert sqlite.inventory(sqlite.folder / "hosts.yml").code != 0
