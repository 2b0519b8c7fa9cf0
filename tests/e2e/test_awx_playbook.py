"""playbooks/awx.yml, run for real against a stand-in for AWX."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.registry_run import Place
from tests.lab.fleet import ROOT
from tests.unit.api_shim.awx_objects import Objects
from tests.unit.api_shim.awx_stand_in import AwxStandIn, stand_in

TOKEN = "an-administrators-token"
URL = "postgresql://vpnfleet:a-password@db.example.com/vpnfleet"
KEY = "bm90IGEga2V5LCBidXQgYXMgc2VjcmV0IGFzIG9uZS4="
SECRETS = (TOKEN, URL, KEY, "a-password")
TEMPLATES = ("provision", "disconnect", "transfer", "remove", "drift", "reconcile", "nodes")
MACHINE = {"name": "Machine", "kind": "ssh", "inputs": {}, "injectors": {}}


@dataclass(frozen=True)
class Run:
    """How ansible-playbook ended, and what it said."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        found = re.search(r"^localhost .*\bchanged=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found[1])

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", self.output)


@dataclass(frozen=True)
class Site:
    """An AWX with a machine credential and an execution environment, and a folder to run the playbook in."""

    awx: AwxStandIn
    folder: Path

    def apply(self, *arguments: str, environment: dict[str, str] | None = None, **variables: Any) -> Run:
        given = {
            "awx_scm_url": "https://git.example.com/vpnfleet/vpnfleet.git",
            "awx_machine_credential": "nodes",
            "awx_execution_environment": "vpnfleet",
            **variables,
        }
        done = subprocess.run(
            [
                "ansible-playbook",
                "-i",
                "localhost,",
                str(ROOT / "playbooks/awx.yml"),
                "-e",
                json.dumps(given),
                *arguments,
            ],
            env={
                **Place(URL, (KEY,), self.folder).environment(),
                "VPNFLEET_AWX_URL": self.awx.url,
                "VPNFLEET_AWX_ADMIN_TOKEN": TOKEN,
                **(environment or {}),
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return Run(done.returncode, done.stdout)

    def one(self, kind: str, name: str) -> dict[str, Any]:
        return self.awx.objects.one(kind, name)

    @property
    def writes(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.awx.requests if one.method != "GET"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with a_site(tmp_path) as site:
        yield site


@contextmanager
def a_site(folder: Path) -> Iterator[Site]:
    with stand_in() as awx:
        awx.token = TOKEN
        machine = awx.objects.add("credential_types", **MACHINE)
        awx.objects.add("credentials", name="nodes", credential_type=machine, inputs={})
        awx.objects.add("execution_environments", name="vpnfleet", image="registry.example.com/vpnfleet:1")
        yield Site(awx, folder)


@pytest.fixture(scope="module")
def objects_applied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Objects, Run]:
    """What the playbook makes in an empty AWX, and how it ran with all that it can say."""
    with a_site(tmp_path_factory.mktemp("awx")) as site:
        run = site.apply("-vvv")
        return site.awx.objects, run


@pytest.fixture
def applied(site: Site, objects_applied: tuple[Objects, Run]) -> Site:
    """One to which the playbook has been applied."""
    assert objects_applied[1].code == 0, objects_applied[1].output
    site.awx.objects = deepcopy(objects_applied[0])
    return site


def test_all_is_made_as_the_shim_needs_it(applied: Site, objects_applied: tuple[Objects, Run]) -> None:
    site, run = applied, objects_applied[1]
    assert not [secret for secret in SECRETS if secret in run.output]

    organization = site.one("organizations", "vpnfleet")["id"]
    kind = site.one("credential_types", "vpnfleet registry")
    assert [(one["id"], one["secret"]) for one in kind["inputs"]["fields"]] == [
        ("database_url", True),
        ("encryption_key", True),
    ]
    assert kind["injectors"] == {
        "env": {
            "VPNFLEET_DATABASE_URL": "{{ database_url }}",
            "VPNFLEET_ENCRYPTION_KEY": "{{ encryption_key }}",
        }
    }
    registry = site.one("credentials", "vpnfleet registry")
    assert (registry["organization"], registry["credential_type"]) == (organization, kind["id"])
    assert site.awx.objects.secrets[registry["id"]] == {"database_url": URL, "encryption_key": KEY}
    project = site.one("projects", "vpnfleet")
    assert (project["scm_type"], project["scm_branch"], project["status"]) == ("git", "main", "successful")
    source = site.one("inventory_sources", "registry")
    assert source["inventory"] == site.one("inventories", "vpnfleet")["id"]
    assert (source["source"], source["source_project"]) == ("scm", project["id"])
    assert (ROOT / source["source_path"]).is_file()
    assert source["credential"] == registry["id"]

    names = [one["name"] for one in site.awx.objects.kinds["job_templates"].values()]
    assert names == [f"vpnfleet {playbook}" for playbook in TEMPLATES]
    for playbook in TEMPLATES:
        template = site.one("job_templates", f"vpnfleet {playbook}")
        assert template["playbook"] == f"playbooks/{playbook}.yml"
        assert (ROOT / template["playbook"]).is_file()
        assert template["execution_environment"] == site.one("execution_environments", "vpnfleet")["id"]
        for switch in ("variables", "limit", "job_type"):
            assert template[f"ask_{switch}_on_launch"] is True
        assert template["allow_simultaneous"] is True
        attached = site.awx.objects.attached[template["id"]]
        assert sorted(attached) == sorted([registry["id"], site.one("credentials", "nodes")["id"]])
        questions = site.awx.objects.surveys.get(template["id"], {}).get("spec", [])
        assert template["survey_enabled"] == bool(questions) == (playbook != "drift")
        # A question that must be answered, or has a default, changes what the HTTP interface launches.
        assert not [one for one in questions if one["required"] or "default" in one]


def test_a_second_run_changes_nothing(applied: Site) -> None:
    """Nor does it touch what it does not speak of."""
    objects = applied.awx.objects
    template = applied.one("job_templates", "vpnfleet drift")
    vault = objects.add("credential_types", name="Vault", kind="vault")
    mine = objects.add("credentials", name="mine", credential_type=vault, inputs={})
    objects.attached[template["id"]].append(mine)
    template["verbosity"] = 3
    run = applied.apply("-vvv")
    assert run.code == 0, run.output
    assert run.changed == 0
    assert applied.writes == []
    assert not [secret for secret in SECRETS if secret in run.output]


def test_what_was_changed_by_hand_is_put_back(applied: Site) -> None:
    objects = applied.awx.objects
    template = applied.one("job_templates", "vpnfleet remove")
    before = json.dumps([objects.kinds, objects.surveys, objects.attached])
    template["ask_limit_on_launch"] = False
    template["limit"] = "de1.example.com"
    applied.one("inventory_sources", "registry")["update_on_launch"] = False
    objects.surveys[template["id"]] = {**objects.surveys[template["id"]], "spec": []}
    machine = objects.one("credential_types", "Machine")["id"]
    other = objects.add("credentials", name="other", credential_type=machine, inputs={})
    objects.attached[template["id"]] = [other]
    checked = applied.apply("--check")
    assert checked.code == 0, checked.output
    assert applied.writes == []
    assert "ask_limit_on_launch: false -> true" in checked.said
    assert 'limit: "de1.example.com" -> ""' in checked.said

    run = applied.apply()
    assert run.code == 0, run.output
    assert run.changed == checked.changed == 4
    del objects.kinds["credentials"][other]
    objects.attached[template["id"]].sort()
    kept = [objects.kinds, objects.surveys, {key: sorted(value) for key, value in objects.attached.items()}]
    wanted = json.loads(before)
    wanted[2] = {key: sorted(value) for key, value in wanted[2].items()}
    assert json.loads(json.dumps(kept)) == wanted


def test_check_mode_on_an_empty_awx_says_all_and_changes_nothing(site: Site) -> None:
    run = site.apply("--check")
    assert run.code == 0, run.output
    assert site.writes == []
    for what in ("organizations", "credential_types", "projects", "inventories", "inventory_sources"):
        assert f"in {what}" in run.said
    for playbook in TEMPLATES:
        assert f"create vpnfleet {playbook} in job_templates" in run.said
    assert run.changed == 6 + 3 * len(TEMPLATES) - 1


def test_secrets_are_written_again_when_that_is_asked_for(applied: Site) -> None:
    registry = applied.one("credentials", "vpnfleet registry")["id"]
    run = applied.apply("-vvv", environment={"VPNFLEET_ENCRYPTION_KEY": "another"}, awx_update_secrets=True)
    assert run.code == 0, run.output
    assert run.changed == 1
    assert applied.writes == [f"PATCH credentials/{registry}/"]
    assert applied.awx.objects.secrets[registry]["encryption_key"] == "another"
    assert not [secret for secret in SECRETS if secret in run.output]


def test_empty_secrets_are_refused(site: Site) -> None:
    run = site.apply(environment={"VPNFLEET_ENCRYPTION_KEY": ""})
    assert run.code == 2
    assert "VPNFLEET_ENCRYPTION_KEY" in run.said
    assert site.awx.objects.kinds["projects"] == {}


def test_a_credential_that_is_not_there_is_named(site: Site) -> None:
    run = site.apply(awx_machine_credential="nobody")
    assert run.code == 2
    assert "awx_machine_credential: AWX has 0 of credentials named nobody" in run.said
    assert site.writes == []


def test_a_project_that_cannot_be_fetched_is_told(site: Site) -> None:
    site.awx.objects.project_ends = "failed"
    run = site.apply()
    assert run.code == 2
    assert "has not fetched the project vpnfleet (failed)" in run.said


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"VPNFLEET_AWX_ADMIN_TOKEN": "wrong-token"}, "AWX answers 401"),
        ({"VPNFLEET_AWX_URL": "http://127.0.0.1:9"}, "refused"),
        ({"VPNFLEET_AWX_ADMIN_TOKEN": ""}, "VPNFLEET_AWX_ADMIN_TOKEN"),
    ],
)
def test_what_is_wrong_is_said_without_the_token(site: Site, environment: dict[str, str], told: str) -> None:
    run = site.apply("-vvv", environment=environment)
    assert run.code == 2
    assert told in run.said
    assert not [secret for secret in (*SECRETS, "wrong-token") if secret in run.output]
    assert site.writes == []


def test_an_address_with_a_password_is_refused(site: Site) -> None:
    run = site.apply(awx_scm_url="https://git:hunter2@git.example.com/vpnfleet.git")
    assert run.code == 2
    assert "awx_scm_url" in run.said
    assert site.writes == []
