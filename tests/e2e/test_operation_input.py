"""What comes from outside is data: nothing of it is executed, and what cannot be is refused before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from tests.e2e import registry_fleet
from tests.e2e.registry_fleet import RegistryFleet
from tests.e2e.started_playbook import Run

lab = registry_fleet.lab
fleet = registry_fleet.fleet

KNOWN = "known@example.com"
#: What would run if a text were evaluated; MARK is a file that would be there afterwards.
TEMPLATE = "{{ lookup('ansible.builtin.pipe', 'touch MARK') }}"
STATEMENT = "{% set x = lookup('ansible.builtin.pipe', 'touch MARK') %}a@example.com"
COUNTRY = "{{ 7 * 7 }} {% set x = 1 %} $(id) ' OR '1'='1"
BEHIND = [{"name": "a", "allowed_ips": [TEMPLATE]}]
SHELL = ("$(touch MARK)", "a@example.com; touch MARK", "|touch MARK")
SQL = ("known@example.com' OR '1'='1", "x@example.com'; DROP TABLE instance; --")
PATHS = ("../../../etc/passwd", "@MARK")
OPTIONS = ("--help", "-eMARK", "all")
LONG = ("a" * 65 + "@example.com", "a@" + "b" * 100_000 + ".example.com")
CONTROL = (
    "a\x1b[31mb@example.com",
    "a@example.com\nb@example.com",
    "\N{RIGHT-TO-LEFT OVERRIDE}a@example.com",
)
NO_TEXTS = (42, {"name": KNOWN})


@pytest.fixture(scope="module")
def customer(fleet: RegistryFleet) -> dict[str, Any]:
    """An instance that nothing may happen to."""
    return fleet.provision({KNOWN: "node1"})[KNOWN]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def marked(value: Any, mark: Path) -> Any:
    """With the file's path in the place of MARK."""
    return json.loads(json.dumps(value).replace("MARK", str(mark)))


def key_value(asked: dict[str, Any], folder: Path) -> list[str]:  # noqa: ARG001
    """`-e name=value`, as at a shell."""
    return [part for name, value in asked.items() for part in ("-e", f"{name}={value}")]


def in_json(asked: dict[str, Any], folder: Path) -> list[str]:  # noqa: ARG001
    return ["-e", json.dumps(asked)]


def in_yaml_file(asked: dict[str, Any], folder: Path) -> list[str]:
    path = folder / f"{abs(hash(json.dumps(asked)))}.yml"
    path.write_text(json.dumps(asked), encoding="utf-8")  # which is YAML, too
    return ["-e", f"@{path}"]


Form = Callable[[dict[str, Any], Path], list[str]]


def refused(fleet: RegistryFleet, mark: Path, *asked: tuple[str, Form, dict[str, Any], str]) -> None:
    """Playbooks with extra vars in some form: each ends with one line that begins so, and leaves no trace."""
    before, nodes = fleet.desired(), fleet.states()

    def run(one: tuple[str, Form, dict[str, Any], str]) -> Run:
        playbook, form, variables, _says = one
        return fleet.run(playbook, *form(marked(variables, mark), mark.parent))

    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(run, asked))

    for (playbook, form, variables, says), ended in zip(asked, runs, strict=True):
        case = playbook, form.__name__, repr(variables)[:200], ended.output[-3000:]
        assert ended.code == 2, case
        assert ended.published["status"] == "error", case
        assert ended.published["code"] in (400, 404), case
        assert len(ended.errors) == 1, case
        (message,) = ended.errors
        assert message.startswith(says), case
        assert message.isprintable(), case
        assert len(message) < 600, case
        assert "Traceback" not in ended.output, case
    assert not mark.exists()
    assert fleet.desired() == before
    assert fleet.states() == nodes


@pytest.mark.usefixtures("customer")
def test_templates(fleet: RegistryFleet, mark: Path) -> None:
    """In every variable of every playbook, in every form that Ansible takes it."""
    refused(
        fleet,
        mark,
        ("provision", key_value, {"instance": TEMPLATE}, "instance: "),
        ("provision", in_yaml_file, {"instances": [KNOWN, {"instance": TEMPLATE}]}, "instances[1]: "),
        ("provision", in_json, {"instance": KNOWN, "node": TEMPLATE}, "node: "),
        ("provision", in_json, {"instance": KNOWN, "prefix_length": TEMPLATE}, "prefix_length: "),
        ("provision", key_value, {"instance": KNOWN, "peers": TEMPLATE}, "peers: "),
        (
            "provision",
            in_json,
            {"instance": KNOWN, "peers": [{"public_key": TEMPLATE}]},
            "peers[0].public_key",
        ),
        ("provision", in_yaml_file, {"instance": KNOWN, "peers": BEHIND}, "peers[0].allowed_ips"),
        ("provision", in_json, {"instance": KNOWN, "peers": [{TEMPLATE: "a"}]}, "peers[0]: "),
        ("disconnect", key_value, {"instance": STATEMENT}, "instance: "),
        ("disconnect", in_json, {"instances": [KNOWN, TEMPLATE]}, "instances[1]: "),
        ("transfer", in_yaml_file, {"instance": TEMPLATE, "node": "node2"}, "instance: "),
        ("transfer", key_value, {"instance": KNOWN, "node": TEMPLATE}, "node: "),
        ("remove", key_value, {"instances": TEMPLATE}, "instances: "),
        ("remove", in_json, {"instance": TEMPLATE}, "instance: "),
        ("remove", in_yaml_file, {"instance": [TEMPLATE]}, "instance: "),
        ("drift", key_value, {"node": TEMPLATE}, "node: "),
        ("reconcile", in_json, {"node": "node1", "remove_unknown": TEMPLATE}, "remove_unknown: "),
    )


@pytest.mark.usefixtures("customer")
def test_what_is_no_name(fleet: RegistryFleet, mark: Path) -> None:
    """Shell, SQL, paths, options, what is too long, what cannot be printed, and what is no text."""
    playbooks = ("disconnect", "remove", "provision", "transfer")
    asked: list[tuple[str, Form, dict[str, Any], str]] = []
    for number, text in enumerate((*SHELL, *SQL, *PATHS, *OPTIONS, *LONG, *CONTROL, *NO_TEXTS)):
        playbook = playbooks[number % len(playbooks)]
        node = {"node": "node2"} if playbook == "transfer" else {}
        asked.append((playbook, in_json, {"instance": text, **node}, "instance: "))
    for number, text in enumerate((SHELL[0], PATHS[0], "all", CONTROL[0], ["node2"])):
        asked.append(
            (("transfer", "provision")[number % 2], in_json, {"instance": KNOWN, "node": text}, "node: ")
        )
    refused(fleet, mark, *asked)


@pytest.mark.usefixtures("customer")
def test_what_is_not_there(fleet: RegistryFleet, mark: Path) -> None:
    unknown = "nobody@example.com"
    refused(
        fleet,
        mark,
        ("disconnect", in_json, {"instances": [KNOWN, unknown]}, f"no instance is called {unknown}"),
        ("transfer", key_value, {"instance": unknown, "node": "node2"}, f"no instance is called {unknown}"),
        ("transfer", key_value, {"instance": KNOWN, "node": "node9"}, "no node is called node9"),
        ("provision", key_value, {"instance": unknown, "node": "node9"}, "no node is called node9"),
        ("transfer", key_value, {"instance": KNOWN}, "node: "),
        ("remove", in_json, {"instance": KNOWN, "instances": [KNOWN]}, "instance: "),
        ("remove", in_json, {"instances": [KNOWN, KNOWN]}, "instances: "),
    )


@pytest.mark.usefixtures("customer")
def test_texts_of_customers_and_operators_stay_as_they_are(fleet: RegistryFleet, mark: Path) -> None:
    """A peer may be called anything that can be printed, and so may a node's country."""
    name = "odd@example.com"
    odd = [marked(text, mark) for text in (TEMPLATE, STATEMENT, SHELL[0], SQL[1], "--help", "'\"\\ {{")]
    with fleet.registry() as registry, registry.write() as session:
        session.scalars(select(Node).where(Node.name == "node2")).one().country = COUNTRY

    made = fleet.done(
        "provision", "-vvv", instance=name, node="node1", peers=[{"name": text} for text in odd]
    )
    moved = fleet.done("transfer", "-vvv", instance=name, node="node2")

    assert [peer["name"] for peer in made.result["peers"]] == odd
    assert moved.result["new_server"]["country"] == COUNTRY
    assert COUNTRY in moved.result["message"]
    assert fleet.operations(name)[-1].result == moved.result
    assert not mark.exists()
