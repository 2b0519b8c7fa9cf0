"""What drift.yml leaves for people and for CI: the files, the diff, and whether it has failed."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.action import operation_report
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import drift_report
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
    Reporting,
    read_reporting,
    read_requests,
)
from tests.unit.plugins.plugin_utils.registry.drift_reports import lost, missing, node
from tests.unit.plugins.plugin_utils.registry.rows import add_teardown
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    """Alice on nl1, her phone taken out by hand; fr1 is away."""
    made = with_drift(controller)
    made.play("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}, {"name": "{{ 7*7 }}"}])
    for there in made.fleet.nodes[NL].up.values():
        there["peers"] = there["peers"][1:]
    made.fleet.nodes[FR].weather = Weather.UNREACHABLE
    return made


def interface_of(fleet: DriftController) -> str:
    with fleet.registry.read() as session:
        return session.scalars(select(Instance)).one().interface


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "drift.json").read_text(encoding="utf-8"))
    return found


# ---- the files


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_a_report_for_people_and_programs(fleet: DriftController, tmp_path: Path, check: bool) -> None:
    folder = tmp_path / "reports" / "today"
    result = fleet.play("drift", check=check, report_dir=str(folder))
    assert result["report"] == {"html": str(folder / "drift.html"), "json": str(folder / "drift.json")}
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert files == {"drift.html": 0o600, "drift.json": 0o600}

    told = written(folder)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["created_at"])
    assert told["instances"] == {interface_of(fleet): ALICE}
    nodes = told["data"]["nodes"]
    assert [one.pop("node") for one in nodes.values()] == [DE, FR, NL]
    assert nodes.keys() == result["data"]["nodes"].keys()
    for number, found in result["data"]["nodes"].items():
        assert nodes[number] == found
    assert told["data"]["summary"] == result["data"]["summary"]

    text = (folder / "drift.html").read_text(encoding="utf-8")
    for part in ("Drift on 1 of 3 nodes, 1 not read", "Missing peers: 1", ALICE, "phone", NL):
        assert part in text


def test_the_data_are_whole_where_what_is_published_is_cut(fleet: DriftController, tmp_path: Path) -> None:
    """Of many nodes with much drift, a runner can transport some."""
    peers = [{"name": f"device {number}"} for number in range(800)]
    for name in (NL, DE):
        fleet.play("provision", instance=f"bob@{name}", node=name, peers=peers)
    for name in (NL, DE):
        for there in fleet.fleet.nodes[name].up.values():
            there["peers"] = []
    result = fleet.play("drift", report_dir=str(tmp_path))
    assert any(found.get("truncated") for found in result["data"]["nodes"].values())
    for found in written(tmp_path)["data"]["nodes"].values():
        assert "truncated" not in found
        assert len(found["missing_peers"]) == found["summary"].get("missing_count", 0)


def test_of_one_node(fleet: DriftController, tmp_path: Path) -> None:
    fleet.play("drift", node=NL, report_dir=str(tmp_path))
    told = written(tmp_path)["data"]
    assert [one["node"] for one in told["nodes"].values()] == [NL]
    assert (told["summary"]["total_nodes"], told["summary"]["total_issues"]) == (1, 1)


def test_without_being_asked_nothing_is_written(
    fleet: DriftController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert "report" not in fleet.play("drift")
    assert set(tmp_path.rglob("*")) - before == set()


def test_a_report_takes_the_place_of_the_last_one(fleet: DriftController, tmp_path: Path) -> None:
    fleet.play("drift", report_dir=str(tmp_path))
    first = written(tmp_path)
    fleet.fleet.nodes[FR].weather = Weather.FINE
    fleet.play("drift", report_dir=str(tmp_path))
    assert first["data"]["nodes"] != written(tmp_path)["data"]["nodes"]
    assert "not read" not in (tmp_path / "drift.html").read_text(encoding="utf-8")


def test_what_cannot_be_written_leaves_the_last_one_and_is_told(
    fleet: DriftController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.fleet.nodes[FR].weather = Weather.FINE
    fleet.play("drift", report_dir=str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("drift.*")}

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = fleet.play("drift", report_dir=str(tmp_path))
    assert fleet.undone == [f"the report cannot be written to {tmp_path}: No space left on device"]
    assert result["status"] == "success"
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*drift.*")} == before
    # The look itself is done, and stands in the registry.
    assert [one["status"] for one in result["operations"]] == ["success"] * 3


def test_the_instances_that_are_still_to_be_taken_down_have_names(
    fleet: DriftController, tmp_path: Path
) -> None:
    with fleet.registry.write() as session:
        number = next(one.node_id for one in session.scalars(select(Instance)))
        left = add_teardown(
            session, session.get_one(Node, number), instance_name="gone@example.com"
        ).interface
    kept = next(iter(fleet.fleet.nodes[NL].up.values()))
    fleet.fleet.nodes[NL].up[left] = kept
    fleet.play("drift", node=NL, report_dir=str(tmp_path))
    assert written(tmp_path)["instances"][left] == "gone@example.com"


def test_entries_have_a_lasting_order() -> None:
    results: list[dict[str, Any]] = [
        {
            "node": name,
            "node_id": name,
            "data": node(name, missing_peers=[missing("wg10", "b"), missing("wg9", "a")]),
        }
        for name in (NL, DE)
    ]
    away = {"node": FR, "node_id": FR, "message": "away", "reachable": False, "last_seen": None}
    results.append(away)
    told = drift_report.whole(results)
    assert list(told["nodes"]) == [DE, FR, NL]
    assert [one["interface"] for one in told["nodes"][NL]["missing_peers"]] == ["wg9", "wg10"]
    assert told["nodes"][FR]["error"] == "away"
    assert told["nodes"][FR].keys() >= lost(FR, "away").keys()


# ---- whether it has failed


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_drift_is_a_failure_for_whom_it_is_one(fleet: DriftController, check: bool) -> None:
    fleet.fleet.nodes[FR].weather = Weather.FINE
    fleet.play("drift", check=check)
    assert fleet.undone == []
    fleet.play("drift", check=check, fail_on_drift="yes")
    assert fleet.undone == [f"drift on 1 of 3 nodes: {NL} (1 issue)"]
    fleet.play("drift", check=check, fail_on_drift=True, node=DE)
    assert fleet.undone == []
    fleet.fleet.nodes[FR].weather = Weather.UNREACHABLE
    fleet.play("drift", check=check, fail_on_drift=True)
    assert len(fleet.undone) == 2
    fleet.play("drift", check=check)
    assert len(fleet.undone) == 1


def test_what_is_published_stays_what_it_is(fleet: DriftController, tmp_path: Path) -> None:
    plain = fleet.play("drift")
    told = fleet.play("drift", fail_on_drift=True, report_dir=str(tmp_path))
    assert told.pop("report")
    for one in (plain, told):
        for each in one["operations"]:
            each.pop("operation_id")
            each.get("data", {}).pop("detected_at", None)
        for each in one["data"]["nodes"].values():
            each.pop("detected_at", None)
    assert told == plain


# ---- what may be asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("report_dir", ""),
        ("report_dir", 7),
        ("report_dir", ["/tmp"]),
        ("report_dir", "/tmp/a\nb"),
        ("report_dir", "/tmp/a\x00b"),
        ("report_dir", "/" + "x" * 5000),
        ("report_dir", "{{ lookup('pipe', 'touch /tmp/x') }}"),
        ("report_dir", "/tmp/{% raw %}"),
        ("report_dir", "~nobody-of-this-name/x"),
        ("report_dir", __file__),
        ("fail_on_drift", "maybe"),
        ("fail_on_drift", 7),
        ("fail_on_drift", "{{ true }}"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(field: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"^{field}: "):
        read_requests("drift", {field: value})
    if field == "report_dir":
        assert read_requests("reconcile", {"node": NL, field: value})


def test_a_path_is_taken_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ops")
    assert read_reporting({}) == Reporting(None, False)
    assert read_reporting({"report_dir": "out"}).folder == tmp_path / "out"
    assert read_reporting({"report_dir": "~/out"}).folder == Path("/home/ops/out")
    assert read_reporting({"report_dir": "/srv/out", "fail_on_drift": "true"}) == Reporting(
        Path("/srv/out"), True
    )


def test_a_look_over_http_writes_nothing_here(fleet: DriftController, tmp_path: Path) -> None:
    run, _hosts = fleet.begin("drift", None, True, {})
    asked = {"report_dir": str(tmp_path / "no"), **fleet._vars({})}
    fleet.tell({**run, "recorded": True, "nodes": []}, asked, check=False)
    assert not (tmp_path / "no").exists()


# ---- the diff


def test_a_diff_is_shown_though_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    action = operation_report.ActionModule(
        SimpleNamespace(args={}, async_val=0),
        SimpleNamespace(),
        SimpleNamespace(),
        SimpleNamespace(),
        None,
        None,
    )
    monkeypatch.setattr(action._display, "display", lambda text: shown.append(text))
    monkeypatch.setattr(operation_report, "_MOST_LINES", 7)
    nodes = [
        {"node": name, "data": node(name, missing_peers=[missing("wg9", "phone")])} for name in (NL, DE, FR)
    ]
    found = action._show_diffs([*nodes, {"node": "lost", "message": "away"}])
    assert [one["after_header"] for one in found] == [f"{DE} wg9"]
    (text,) = shown
    lines = text.splitlines()
    assert lines[:2] == [f"--- before: {DE} wg9", f"+++ after: {DE} wg9"]
    assert len(lines) == 8
    assert "and more" in lines[-1]
    assert action._show_diffs([{"node": NL, "data": node(NL)}]) == []
    assert len(shown) == 1
