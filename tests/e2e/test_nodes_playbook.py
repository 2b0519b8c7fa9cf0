"""playbooks/nodes.yml and playbooks/registry.yml, on both databases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select, text

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import schema
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Instance,
    Node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
    apply_nodes,
    described,
    list_nodes,
)
from tests.e2e import registry_run
from tests.e2e.registry_run import Place, Run, a_key

place = registry_run.place
sqlite = registry_run.sqlite

WRITE = "Write the nodes into the registry"
UPDATE = "Bring schema and secrets up to date"
FLEET: list[dict[str, Any]] = [
    {
        "name": "de1.example.com",
        "ansible_host": "192.0.2.11",
        "country": "DE",
        "ip_pool_cidr": "10.64.0.0/16",
    },
    {"name": "nl1.example.com", "country": "NL", "ip_pool_cidr": "10.65.0.0/16", "enabled": False},
]


def apply(place: Place, nodes: Any, *arguments: str, **environment: str) -> Run:
    (place.folder / "fleet.yml").write_text(yaml.safe_dump(nodes), encoding="utf-8")
    return place.playbook("nodes", "--extra-vars", "nodes_file=fleet.yml", *arguments, **environment)


def nodes_in(place: Place) -> dict[str, dict[str, Any]]:
    with place.open().read() as session:
        return {node.name: described(node) for node in list_nodes(session)}


def audit(place: Place) -> list[tuple[str, str, str]]:
    with place.open().read() as session:
        return [
            (row.actor, row.action, row.subject)
            for row in session.scalars(select(AuditEntry).order_by(AuditEntry.id))
        ]


# -- nodes.yml


def test_foreseen_where_there_is_no_registry(sqlite: Place) -> None:
    foreseen = apply(sqlite, {"nodes": FLEET}, "--check", "--diff")
    assert foreseen.code == 0, foreseen.said
    assert foreseen.published is not None
    assert foreseen.published["nodes"]["created"] == ["de1.example.com", "nl1.example.com"]
    assert [path.name for path in sqlite.folder.iterdir() if "registry" in path.name] == []


def test_foreseen_done_and_done_once(place: Place) -> None:
    place.open()
    foreseen = apply(place, {"nodes": FLEET}, "--check", "--diff")
    assert foreseen.code == 0, foreseen.said
    assert nodes_in(place) == {}
    assert audit(place) == []
    done = apply(place, {"nodes": FLEET}, "--diff", VPNFLEET_ACTOR="alice")
    assert done.code == 0, done.said

    published = {
        "operation": "nodes",
        "status": "success",
        "code": 200,
        "changed": True,
        "message": "de1.example.com created; nl1.example.com created",
        "nodes": {"created": ["de1.example.com", "nl1.example.com"], "updated": [], "removed": []},
    }
    assert done.published == published
    assert foreseen.published == {**published, "status": "planned"}
    assert shape(foreseen) == shape(done)
    assert set(nodes_in(place)) == {"de1.example.com", "nl1.example.com"}
    assert audit(place) == [
        ("alice", "node created", "de1.example.com"),
        ("alice", "node created", "nl1.example.com"),
    ]

    again = apply(place, {"nodes": FLEET}, "--diff")
    assert again.published == {
        **published,
        "changed": False,
        "message": "nothing to change",
        "nodes": {"created": [], "updated": [], "removed": []},
    }
    assert again.results[WRITE]["changed"] is False
    assert again.results[WRITE]["diff"] == []
    assert len(audit(place)) == 2


def test_update_disable_and_remove(sqlite: Place) -> None:
    place = sqlite
    apply(place, FLEET)
    run = apply(
        place,
        [
            {"name": "de1.example.com", "enabled": False, "max_peers": 10},
            {"name": "nl1.example.com", "state": "absent"},
        ],
        "--diff",
    )
    assert run.published is not None
    assert run.published["message"] == (
        "de1.example.com updated: enabled true -> false, max_peers none -> 10; nl1.example.com removed"
    )
    first, second = run.results[WRITE]["diff"]
    assert "-enabled: true\n+enabled: false\n" in run.stdout
    assert "max_peers: 10\n" in first["after"]
    assert (first["before_header"], second["after"]) == ("node de1.example.com", "")
    assert set(nodes_in(place)) == {"de1.example.com"}
    left_out = apply(place, [])
    assert left_out.results[WRITE]["changed"] is False
    assert set(nodes_in(place)) == {"de1.example.com"}


def test_what_is_refused_is_published_too(sqlite: Place) -> None:
    apply(sqlite, FLEET)
    an_instance(sqlite)
    before = nodes_in(sqlite)
    run = apply(sqlite, [{"name": "de1.example.com", "weight": 1}, {"name": "nl1.example.com", "wieght": 7}])
    assert run.code == 2
    message = run.results[WRITE]["msg"]
    assert message.startswith(
        "node nl1.example.com: 'wieght': is no field of a node; these are: ansible_host, "
    )
    assert run.published == {
        "operation": "nodes",
        "status": "error",
        "code": 400,
        "changed": False,
        "message": message,
    }
    in_use = apply(sqlite, [{"name": "de1.example.com", "state": "absent"}])
    assert in_use.published is not None
    assert in_use.published["code"] == 409
    assert "alice@example.com" in in_use.results[WRITE]["msg"]
    assert nodes_in(sqlite) == before


def test_nothing_from_outside_is_a_template(sqlite: Place) -> None:
    """Not an extra var, not the file, not what is in it."""
    mark = sqlite.folder / "mark"
    template = f"{{{{ lookup('pipe', 'touch {mark}') }}}}"

    def run(name: str, **variables: str) -> Run:
        return sqlite.playbook(name, "--extra-vars", json.dumps(variables))

    (sqlite.folder / "{{ 1 }}.yml").write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    odd = run("nodes", nodes_file="{{ 1 }}.yml", awx_user_name=template)
    assert odd.code == 0, odd.said
    assert {actor for actor, _action, _subject in audit(sqlite)} == {template}
    unknown = run("nodes", nodes_file=template)
    assert unknown.code == 2
    assert f"there is no file {sqlite.folder}/{template}" in unknown.results[WRITE]["msg"]
    asked = run("registry", rotate_encryption_key=template)
    assert asked.code == 2
    assert "is neither true nor false" in asked.results[UPDATE]["msg"]
    filled = run("registry", copy_from=template)
    assert filled.code == 2
    assert f"there is no file {sqlite.folder}/{template}" in filled.results[UPDATE]["msg"]
    inside = apply(sqlite, [{"name": "de1.example.com", "country": template, template: template}])
    assert inside.code == 2
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- name: [hunter2\n", "is neither JSON nor YAML: line 2"),
        (b"\xff\xfe", "is neither JSON nor YAML: not UTF-8"),
        (b"nodez: []\n", "nodes: is not a list"),
        (b"", "nodes: is not a list"),
        (b"- hunter2\n", "nodes[0]: is not a mapping of a node's fields"),
    ],
)
def test_a_useless_file_is_refused_and_not_repeated(sqlite: Place, content: bytes, told: str) -> None:
    (sqlite.folder / "fleet.yml").write_bytes(content)
    run = sqlite.playbook("nodes", "--extra-vars", "nodes_file=fleet.yml")
    assert run.code == 2
    assert told in run.results[WRITE]["msg"]
    assert "hunter2" not in run.said


def test_a_file_is_needed(sqlite: Place) -> None:
    run = sqlite.playbook("nodes")
    assert run.code == 2
    assert run.results[WRITE]["msg"] == "nodes_file: is needed: the path of the file that describes the nodes"


def test_the_file_may_be_encrypted(sqlite: Place) -> None:
    tmp_path = sqlite.folder
    (tmp_path / "password").write_text("correct horse\n", encoding="utf-8")
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump(FLEET), encoding="utf-8")
    vault = Path(sys.executable).parent / "ansible-vault"
    subprocess.run(
        [vault, "encrypt", "--vault-password-file", "password", "fleet.yml"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert "de1.example.com" not in (tmp_path / "fleet.yml").read_text(encoding="utf-8")
    run = sqlite.playbook(
        "nodes", "--extra-vars", "nodes_file=fleet.yml", "--vault-password-file", str(tmp_path / "password")
    )
    assert run.code == 0, run.said
    assert set(nodes_in(sqlite)) == {"de1.example.com", "nl1.example.com"}


# -- registry.yml


def test_the_schema_is_foreseen_made_and_made_once(place: Place) -> None:
    foreseen = place.playbook("registry", "--check", "--diff")
    assert foreseen.code == 0, foreseen.said
    assert sorted(path.name for path in place.folder.iterdir() if path.name.startswith("registry")) == []
    done = place.playbook("registry", "--diff", VPNFLEET_ACTOR="alice")
    published = {
        "operation": "registry",
        "status": "success",
        "code": 200,
        "changed": True,
        "message": f"the schema made, at revision {schema.HEAD}",
        "schema": {"before": None, "after": schema.HEAD},
        "copied": {},
        "rotated": {},
    }
    assert done.published == published
    assert foreseen.published == {**published, "status": "planned"}
    assert shape(foreseen, UPDATE) == shape(done, UPDATE)
    assert audit(place) == [("alice", "schema upgrade", "registry")]
    again = place.playbook("registry", "--diff")
    assert again.results[UPDATE]["changed"] is False
    assert again.results[UPDATE]["diff"] == []
    assert nodes_in(place) == {}


def test_an_old_schema_is_not_worked_with_and_a_newer_one_left_alone(place: Place) -> None:
    registry = place.open()

    def set_revision(revision: str) -> None:
        with registry.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})

    set_revision("0000")
    assert "run playbooks/registry.yml" in apply(place, FLEET).results[WRITE]["msg"]
    planned = place.playbook("registry", "--check").published
    assert planned is not None
    assert planned["schema"] == {"before": "0000", "after": schema.HEAD}
    set_revision("9999")
    for run in (apply(place, FLEET), place.playbook("registry"), place.playbook("registry", "--check")):
        assert run.code == 2
        assert run.published is not None
        assert "use the version that upgraded it, or a newer one" in run.published["message"]
    with registry.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


def test_the_key_is_rotated(place: Place) -> None:
    with place.open().write() as session:
        apply_nodes(session, FLEET)
    an_instance(place)
    arguments = ("--extra-vars", "rotate_encryption_key=true", "--diff")
    new = a_key()
    both = replace(place, keys=(new, *place.keys))

    foreseen = both.playbook("registry", *arguments, "--check")
    unchanged = place.playbook("registry", *arguments)
    done = both.playbook("registry", *arguments)
    again = both.playbook("registry", *arguments)

    none = dict.fromkeys(
        ("peer.private_key", "peer.preshared_key", "node.agent_secret", "node.agent_secret_next"), 0
    )
    for run, count in ((foreseen, 1), (unchanged, 0), (done, 1), (again, 0)):
        assert run.code == 0, run.said
        assert run.published is not None
        assert run.published["rotated"] == {"instance.private_key": count, **none}
        assert run.published["changed"] is bool(count)
    assert shape(foreseen, UPDATE) == shape(done, UPDATE)
    assert [action for _actor, action, _subject in audit(both)][-1] == "key rotation"
    with replace(place, keys=(new,)).open().read() as session:
        assert session.scalars(select(Instance.private_key)).one() == "the instance's key"
    old = apply(place, FLEET)
    assert old.code == 2
    assert "another key than those of VPNFLEET_ENCRYPTION_KEY" in old.said
    assert "the instance's key" not in done.said + foreseen.said


def test_a_sqlite_registry_moves_to_postgresql(sqlite: Place, postgres_url: str) -> None:
    with sqlite.open().write() as session:
        apply_nodes(session, FLEET)
    an_instance(sqlite)
    arguments = ("--extra-vars", "copy_from=registry.sqlite3", "--diff")
    new = replace(sqlite, url=postgres_url)

    done = new.playbook("registry", *arguments)

    assert done.code == 0, done.said
    assert done.published is not None
    assert {name: count for name, count in done.published["copied"].items() if count} == {
        "node": 2,
        "instance": 1,
    }
    assert nodes_in(new) == nodes_in(sqlite)
    again = new.playbook("registry", *arguments)
    assert again.published is not None
    assert again.published["code"] == 409
    refused = sqlite.playbook("registry", *arguments)
    assert "to have a SQLite one elsewhere, copy its file" in refused.results[UPDATE]["msg"]


def test_a_registry_that_is_not_there_is_told_and_published(tmp_path: Path) -> None:
    place = Place("postgresql://fleet:hunter2@127.0.0.1:1/fleet", (a_key(),), tmp_path)
    for run in (place.playbook("registry", "--check"), apply(place, FLEET)):
        assert run.code == 2
        assert run.published is not None
        assert run.published["code"] == 500
        assert run.published["message"].startswith(
            "the registry (postgresql+psycopg://fleet:***@127.0.0.1:1/fleet)"
        )
        assert "hunter2" not in run.said
        assert place.keys[0] not in run.said


def test_postgresql_without_a_schema_asks_for_the_playbook(postgres_url: str, tmp_path: Path) -> None:
    run = apply(Place(postgres_url, (a_key(),), tmp_path), FLEET)
    assert run.code == 2
    assert run.results[WRITE]["msg"] == "the registry has no schema yet: run playbooks/registry.yml"


def test_an_empty_machine_needs_nothing_configured(tmp_path: Path) -> None:
    """The first run makes the SQLite database and its key, in the user's data directory."""
    place = Place("", (), tmp_path)
    run = apply(place, FLEET)
    assert run.code == 0, run.said
    made = tmp_path / ".local/share/vpnfleet"
    assert {"registry.db", "registry.key"} <= {path.name for path in made.iterdir()}
    assert (made / "registry.key").stat().st_mode & 0o777 == 0o600


# -- what they have in common


def an_instance(place: Place) -> None:
    with place.open().write() as session:
        node = session.scalars(select(Node).where(Node.name == "de1.example.com")).one()
        session.add(
            Instance(
                name="alice@example.com",
                node_id=node.id,
                listen_port=51820,
                public_key="public",
                private_key="the instance's key",
                subnet="10.64.0.0/24",
                subnet6="fd00:1::/64",
            )
        )


def shape(run: Run, task: str = WRITE) -> Any:
    """The diff, without what is made by chance: an IPv6 pool."""
    text_of = json.dumps(run.results[task]["diff"])
    return json.loads(re.sub(r"ip6_pool_cidr: [0-9a-f:]+/48", "ip6_pool_cidr: any", text_of))
