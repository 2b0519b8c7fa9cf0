"""wg_drift on a real node: what it reports, that it only looks unless told otherwise, its repairs by the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import play, script, task
from tests.e2e.contract import (
    A_SECRET,
    BASE,
    FILE,
    SECRET,
    SINGLES,
    A,
    B,
    C,
    Row,
    Table,
    changes,
    check_endpoints,
    check_file_alone,
    check_what_is_said,
    check_what_runs,
    fill,
    numbered,
    run_table,
)
from tests.e2e.node_state import READ_STATE, parse_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer, peer_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node

MISSING, MISMATCHED, UNKNOWN = "reconcile_missing", "reconcile_mismatched", "remove_unknown"
EVERYTHING = {MISSING: True, MISMATCHED: True, UNKNOWN: True}

# What runs: A with other networks, B, and a stranger; what should: A, B, C.
DRIFTED = f"wg set wg<n> peer {peer_key('a')} allowed-ips 10.<n>.0.22/32 peer {peer_key('x')} allowed-ips 10.<n>.0.9/32"
A_DRIFTED = peer("a", "10.<n>.0.22/32")
STRANGER = peer("x", "10.<n>.0.9/32")
WANTED = [{**A, "name": "phone", "peer_id": "17"}, B, {**C, "name": "tablet", "peer_id": "19"}]


@dataclass(frozen=True)
class Report:
    """What is to be reported: the keys' names, the fields of interface issues, and what was repaired."""

    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


ALL_DRIFT = dict(unknown=("x",), missing=("c",), mismatched=("a",), issues=("file",))


def drifts(
    name: str, report: Report, peers: list[Any], runs: list[Any] | None, **more: Any
) -> tuple[Row, Report]:
    """A row of wg_drift on an interface that drifted from BASE."""
    switches = more.pop("switches", {})
    changed = more.pop("changed", runs is not None)
    row = changes(
        name,
        {"peers": peers, **switches},
        module="wg_drift",
        changed=changed,
        runs={} if runs is None else {"peers": runs},
        then=more.pop("then", DRIFTED),
        **more,
    )
    return row, report


CASES = [
    drifts("one switch: what is missing", Report(**ALL_DRIFT, added=("c",)), WANTED,
           [A_DRIFTED, B, C, STRANGER], switches={MISSING: True}),
    drifts("one switch: what differs", Report(**ALL_DRIFT, updated=("a",)), WANTED,
           [A, B, STRANGER], switches={MISMATCHED: True}),
    drifts("one switch: what is unknown", Report(**ALL_DRIFT, removed=("x",)), WANTED,
           [A_DRIFTED, B], switches={UNKNOWN: True}),
    drifts("all switches", Report(**ALL_DRIFT, added=("c",), updated=("a",), removed=("x",)), WANTED,
           [A, B, C], switches=EVERYTHING),
    drifts("no drift", Report(), [A, B], [A, B], changed=False, then="", switches=EVERYTHING),
    drifts("other spellings are no drift", Report(), [B, peer("a", "fd00:0<n>:0::2", "10.<n>.0.2")], [A, B],
           changed=False, then="", switches=EVERYTHING),
    drifts("a preshared key too many", Report(mismatched=("a",), updated=("a",)), [A, B], [A, B],
           given={"peers": [A_SECRET, B]}, then="", switches=EVERYTHING),
    drifts("a preshared key too few", Report(mismatched=("a",), updated=("a",)), [A_SECRET, B], [A_SECRET, B],
           then="", switches=EVERYTHING),
    drifts("a keepalive too many", Report(mismatched=("b",), updated=("b",)), [A, B], [A, B],
           given={"peers": [A, {**B, "persistent_keepalive": 9}]}, then="", switches=EVERYTHING),
    drifts("an endpoint is no drift", Report(issues=()), [A, {**B, "endpoint": "192.0.2.4:5"}], [A, B], changed=False,
           then="", switches=EVERYTHING),
    drifts("a route comes with its peer", Report(missing=("c",), added=("c",)), [A, B, peer("c", "10.1<n>.0.0/24")],
           [A, B, peer("c", "10.1<n>.0.0/24")], then="", switches=EVERYTHING, routes=(("10.1<n>.0.0/24", "main"),)),
    # Every peer on its own: C's network is a stranger's, who may not be touched; B and D are put in place.
    drifts("one peer cannot be put in place",
           Report(unknown=("x",), missing=("c", "d"), mismatched=("a",), issues=("file",), added=("d",),
                  updated=("a",), errors=("c",)),
           [A, B, peer("c", "10.<n>.0.9/32"), peer("d", "10.<n>.0.5/32")],
           [A, B, STRANGER, peer("d", "10.<n>.0.5/32")], switches={MISSING: True, MISMATCHED: True}),
    drifts("one peer cannot get its networks",
           Report(unknown=("x",), mismatched=("a", "b"), issues=("file",), updated=("a",), errors=("b",)),
           [A, peer("b", "10.<n>.0.8/29")], [A, B, STRANGER], switches={MISMATCHED: True}),
    drifts("the file alone is behind", Report(issues=("file",)), [A, B], [A, B],
           then=f"sed -i '/^[[]Peer/,$d' {FILE}", switches=EVERYTHING),
    drifts("the file is gone", Report(issues=("file",)), [A, B], [A, B], then=f"rm {FILE}", switches=EVERYTHING),
    drifts("the file is broken", Report(issues=("file",)), [A, B], [A, B], then=f"echo nonsense >{FILE}",
           switches=EVERYTHING),
    drifts("the port is another one", Report(issues=("listen_port",)), [A, B], [A, B], changed=False, then="",
           switches=EVERYTHING),
    drifts("a second run has errors again", Report(unknown=("x",), missing=("c",), issues=("file",), errors=("c",)),
           [A, B, peer("c", "10.<n>.0.9/32")], [A, B, STRANGER],
           then=f"wg set wg<n> peer {peer_key('x')} allowed-ips 10.<n>.0.9/32",
           switches={MISSING: True, MISMATCHED: True}),
]  # fmt: skip
CASES = [
    (changes(row.name, {**row.asked, "listen_port": 9}, module="wg_drift", changed=False), report)
    if row.name == "the port is another one"
    else (row, report)
    for row, report in CASES
]
ROWS = numbered([row for row, _ in CASES])
REPORTS = {row.name: report for row, report in CASES}

_ALL = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@pytest.fixture(scope="module")
def table(lab: Lab, node: Node) -> Iterator[Table]:
    yield run_table(lab, node, ROWS, SINGLES)
    empty(node)


def reported(answer: dict[str, Any]) -> dict[str, list[str]]:
    """The keys, and the fields of issues, that an answer names."""
    repaired = answer.get("reconciled", {})
    return {
        **{
            kind: sorted(entry["public_key"] for entry in answer[f"{kind}_peers"])
            for kind in ("unknown", "missing", "mismatched")
        },
        "issues": sorted(entry["field"] for entry in answer["interface_issues"]),
        **{kind: sorted(repaired.get(kind, ())) for kind in ("added", "updated", "removed")},
        "errors": sorted(entry["peer"] for entry in repaired.get("errors", ())),
    }


def expected(report: Report) -> dict[str, list[str]]:
    return {
        kind: sorted(names if kind == "issues" else (peer_key(name) for name in names))
        for kind, names in vars(report).items()
    }


def test_check_mode_touches_nothing(table: Table) -> None:
    assert table.after_check == table.before


def test_a_second_run_touches_nothing(table: Table) -> None:
    assert table.after_again == table.after_real


@_ALL
def test_what_is_said(table: Table, row: Row) -> None:
    check_what_is_said(table, row)
    assert table.check[row.name].answer["reconciled"] == table.real[row.name].answer["reconciled"]


@_ALL
def test_what_is_reported(table: Table, row: Row) -> None:
    report = expected(REPORTS[row.name])
    for answers in (table.check, table.real):
        answer = answers[row.name].answer
        assert reported(answer) == report
        counts = [len(report[kind]) for kind in ("unknown", "missing", "mismatched", "issues")]
        assert answer["summary"] == {
            "unknown_count": counts[0],
            "missing_count": counts[1],
            "mismatched_count": counts[2],
            "interface_count": counts[3],
            "total_issues": sum(counts),
        }
        assert answer["has_drift"] is (sum(counts) > 0)
        for error in answer["reconciled"]["errors"]:
            assert error["interface"] == row.interface
            assert "overlaps" in error["error"]


@_ALL
def test_what_is_repaired_is_no_drift_any_more(table: Table, row: Row) -> None:
    first, second = (reported(answers[row.name].answer) for answers in (table.real, table.again))
    assert second["missing"] == sorted(set(first["missing"]) - set(first["added"]))
    assert second["mismatched"] == sorted(set(first["mismatched"]) - set(first["updated"]))
    assert second["unknown"] == sorted(set(first["unknown"]) - set(first["removed"]))
    assert [*second["added"], *second["updated"], *second["removed"]] == []
    assert second["errors"] == first["errors"]
    assert "file" not in second["issues"]


@_ALL
def test_what_runs_is_what_was_asked_for(table: Table, row: Row) -> None:
    check_what_runs(table, row)
    check_endpoints(table, row)
    check_file_alone(table, row)


# -- without a switch


@pytest.fixture(scope="module")
def looked(lab: Lab, node: Node) -> Iterator[tuple[dict[str, Any], Any]]:
    """What a look at several interfaces reports, and the node's states before and after it."""
    empty(node)
    number = {"drifted": 50, "well": 51, "down": 52, "gone": 53}
    made = [
        {
            "name": f"wg{number[name]}",
            **fill({**BASE, "peers": [{**A, "preshared_key": SECRET}, B]}, number[name]),
        }
        for name in ("drifted", "well", "down")
    ]
    given = play(lab, node, [task("given", "wg_instance", {"instances": made})])["given"]
    assert not given.failed, given.message
    node.run(["sh", "-euc", fill(DRIFTED, 50)])
    node.run(["ip", "link", "set", "wg52", "down"])
    node.write("/run/read-state", READ_STATE)
    interfaces = [
        {"interface": "wg50", "peers": fill(WANTED, 50), "listen_port": 20050},
        {"interface": "wg51", "peers": fill([{**A, "preshared_key": SECRET}, B], 51), "listen_port": 20051},
        {"interface": "wg52", "peers": fill([{**A, "preshared_key": SECRET}, B], 52), "listen_port": 9},
        {"interface": "wg53", "peers": fill([A], 53)},
    ]
    run = play(
        lab,
        node,
        [
            script("before", "sh /run/read-state"),
            task("look", "wg_drift", {"interfaces": interfaces}),
            script("after", "sh /run/read-state"),
        ],
    )
    result = run["look"]
    assert not result.failed, result.message
    assert not result.changed
    assert result.diff == []
    yield result.answer, (parse_state(run["before"].stdout), parse_state(run["after"].stdout))
    empty(node)


def test_a_look_touches_nothing(looked: tuple[dict[str, Any], Any]) -> None:
    before, after = looked[1]
    assert after == before


def test_a_look_reports_every_field(looked: tuple[dict[str, Any], Any]) -> None:
    answer, _ = looked
    assert answer["has_drift"] is True
    assert answer["unknown_peers"] == [
        {
            "interface": "wg50",
            "public_key": peer_key("x"),
            "allowed_ips": ["10.50.0.9/32"],
            "endpoint": None,
            "persistent_keepalive": 0,
        }
    ]
    assert answer["missing_peers"] == [
        {
            "interface": "wg50",
            "public_key": peer_key("c"),
            "allowed_ips": ["10.50.0.4/32"],
            "name": "tablet",
            "peer_id": "19",
        },
        {
            "interface": "wg53",
            "public_key": peer_key("a"),
            "allowed_ips": ["10.53.0.2/32", "fd00:53::2/128"],
            "name": None,
            "peer_id": None,
        },
    ]
    (mismatched,) = answer["mismatched_peers"]
    fields = {entry.pop("field"): entry for entry in mismatched.pop("mismatches")}
    assert mismatched == {
        "interface": "wg50",
        "public_key": peer_key("a"),
        "name": "phone",
        "peer_id": "17",
    }
    assert fields.keys() == {"allowed_ips", "preshared_key"}
    assert fields["allowed_ips"] == {
        "expected": ["10.50.0.2/32", "fd00:50::2/128"],
        "actual": ["10.50.0.22/32"],
    }
    assert fields["preshared_key"]["expected"] == "(none)"
    assert fields["preshared_key"]["actual"].startswith("sha256:")
    issues = {(entry["interface"], entry["field"]): entry for entry in answer["interface_issues"]}
    assert issues.keys() == {
        ("wg50", "file"),
        ("wg52", "interface"),
        ("wg52", "file"),  # an interface that is down has lost its IPv6 address
        ("wg52", "listen_port"),
        ("wg53", "interface"),
        ("wg53", "file"),
    }
    assert issues["wg52", "listen_port"]["actual"] == 20052
    assert (issues["wg52", "interface"]["actual"], issues["wg53", "interface"]["actual"]) == (
        "down",
        "missing",
    )
    assert answer["summary"] == {
        "unknown_count": 1,
        "missing_count": 2,
        "mismatched_count": 1,
        "interface_count": 6,
        "total_issues": 10,
    }


# -- what should not be there


@pytest.fixture(scope="module")
def incomplete(lab: Lab, node: Node) -> Iterator[tuple[dict[str, dict[str, Any]], Any]]:
    """What is reported of interfaces that should be gone, of one that is somebody else's and of one that nobody named,
    and of one with settings of its own; by task. And the node's states before and after."""
    empty(node)
    made = [{"name": f"wg{number}", **fill(BASE, number)} for number in (60, 61, 64, 65, 66)]
    given = play(lab, node, [task("given", "wg_instance", {"instances": made})])["given"]
    assert not given.failed, given.message
    node.run(["ip", "link", "delete", "wg61"])
    node.write("/run/read-state", READ_STATE)
    interfaces = [
        {"interface": "wg60", "state": "absent"},
        {"interface": "wg61", "state": "absent"},
        {"interface": "wg62", "state": "absent"},
        {"interface": "wg64", "state": "any"},
        {
            "interface": "wg65",
            "peers": fill([A, B], 65),
            "public_key": peer_key("c"),
            "addresses": ["10.65.0.1/24"],
            "mtu": 1280,
        },
    ]
    run = play(
        lab,
        node,
        [
            script("before", "sh /run/read-state"),
            task("look", "wg_drift", {"interfaces": interfaces}),
            task("look at all", "wg_drift", {"interfaces": interfaces, "complete": True}),
            task("repair", "wg_drift", {"interfaces": interfaces, "complete": True, **EVERYTHING}),
            script("after", "sh /run/read-state"),
        ],
    )
    answers = {}
    for name in ("look", "look at all", "repair"):
        assert not run[name].failed, run[name].message
        assert not run[name].changed
        answers[name] = run[name].answer
    yield answers, (parse_state(run["before"].stdout), parse_state(run["after"].stdout))
    empty(node)


def test_what_should_not_be_there_is_reported(
    incomplete: tuple[dict[str, dict[str, Any]], Any], node: Node
) -> None:
    answers, (before, _) = incomplete
    issues = [tuple(entry.values()) for entry in answers["look"]["interface_issues"]]
    found = before.interfaces["wg65"]
    assert issues == [
        ("wg60", "interface", "absent", "up"),
        ("wg61", "interface", "absent", "file"),
        ("wg65", "public_key", peer_key("c"), node.run(["wg", "show", "wg65", "public-key"]).stdout.strip()),
        ("wg65", "addresses", ["10.65.0.1/24"], sorted(found.addresses)),
        ("wg65", "mtu", 1280, 1420),
        ("wg65", "routes", "one to each network", "1 missing"),
    ]
    more = [tuple(entry.values()) for entry in answers["look at all"]["interface_issues"]]
    assert more == [*issues, ("wg66", "interface", "absent", "up")]
    assert answers["look at all"]["summary"]["interface_count"] == len(more)
    assert answers["look at all"]["unknown_peers"] == []


def test_what_should_not_be_there_is_left_alone(
    incomplete: tuple[dict[str, dict[str, Any]], Any],
) -> None:
    answers, (before, after) = incomplete
    assert answers["repair"]["interface_issues"] == answers["look at all"]["interface_issues"]
    assert after == before
