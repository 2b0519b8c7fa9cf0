"""The calls that run playbooks, where nobody runs them: who may call, what is refused, and what is recorded."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    License,
    Operation,
    now,
)
from api_shim.problems import shape_of
from api_shim.settings import Settings
from tests.unit.api_shim.edge import INSTANCE, NOBODY, NODE, Edge

BILLING: dict[str, dict[str, Any]] = {
    "/api/disconnect_instance/": {"email": INSTANCE},
    "/api/transfer_instance/": {"email": INSTANCE, "server_id": NODE},
    "/remove_instances/": {"body": {"instance": INSTANCE}},
}
OPS: dict[str, dict[str, Any]] = {
    "/api/instances": {"name": INSTANCE},
    "/api/drift/nodes/{node_id}/reconcile": {},
}
LOOKS = ("/api/drift/nodes", "/api/drift/nodes/{node_id}")
SWITCH = f"/api/operations/{NOBODY}"


@pytest.fixture
def settings() -> Settings:
    return Settings(
        wait_seconds=0, rate_limit_drift_node="", rate_limit_drift_all="", rate_limit_reconcile=""
    )


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Would be there if a text were executed."""
    return tmp_path / "executed"


def hostile(mark: Path) -> list[Any]:
    return [
        f"{{{{ lookup('ansible.builtin.pipe', 'touch {mark}') }}}}",
        f"$(touch {mark})@example.com",
        f"a@example.com; touch {mark}",
        "x@example.com'; DROP TABLE instance; --",
        "../../../etc/passwd",
        "--help",
        "@/etc/passwd",
        "",
        "nobody",
        "a@b",
        "a\x00@example.com",
        "a\u202e@example.com",
        "\u0430lice@example.com",  # the first letter is Cyrillic
        "a@example.com\n",
        " alice@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 1_000_000 + ".example.com",
        42,
        None,
        True,
        {"name": INSTANCE},
        [INSTANCE],
    ]


@pytest.mark.parametrize("path", [*BILLING, *OPS, *LOOKS, SWITCH, f"{SWITCH}/events", f"{SWITCH}/cancel"])
def test_who_may_call(edge: Edge, path: str) -> None:
    method = "GET" if path in LOOKS or path in (SWITCH, f"{SWITCH}/events") else "POST"
    allowed = {"ops"}
    if path in BILLING or path.startswith(SWITCH):
        allowed.add("billing")
    if method == "GET":
        allowed.add("read")
    body = {"json": {**BILLING, **OPS}.get(path, {})} if method == "POST" else {}
    for key in (None, "unknown", "expired", "revoked"):
        answer = edge.call(method, path, key, **body)
        assert answer.status_code == 401, key
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == shape_of(edge.path(path)).media_type
    for key in ("ops", "billing", "read"):
        status = edge.call(method, path, key, **body).status_code
        assert (status != 403) == (key in allowed), (key, status)
        assert status != 401


@pytest.mark.parametrize("path", [*BILLING, "/api/instances"])
def test_what_is_no_name(edge: Edge, path: str, mark: Path) -> None:
    before = edge.rows()
    for text in hostile(mark):
        if path == "/remove_instances/":
            body: dict[str, Any] = {"body": {"instance": text}}
        elif path == "/api/instances":
            body = {"name": text}
        else:
            body = {"email": text, "server_id": NODE}
            if path == "/api/disconnect_instance/":
                del body["server_id"]
        answer = edge.call("POST", path, json=body)
        assert answer.status_code == 400, (text, answer.text)
        assert len(answer.content) < 1500
    if path == "/api/transfer_instance/":
        for text in hostile(mark):
            answer = edge.call("POST", path, json={"email": INSTANCE, "server_id": text})
            assert answer.status_code in (400, 404), (text, answer.text)
            assert len(answer.content) < 1500
    # Refusals of what is no name leave no row; that a server is not found is in the audit.
    after = edge.rows()
    assert {**after, "audit_entry": []} == {**before, "audit_entry": []}
    assert not mark.exists()


@pytest.mark.parametrize("path", [*BILLING, *OPS])
def test_unknown_fields_and_broken_bodies(edge: Edge, path: str) -> None:
    good = {**BILLING, **OPS}[path]
    before = edge.rows()
    for body in (b"", b"{", b"[]", b'"text"', b"null", b"{}x", b"\xff", b'{"a": NaN}'):
        if body in (b"", b"null") and path.endswith("reconcile"):
            continue  # all of its fields have defaults
        assert edge.call("POST", path, content=body).status_code == 400, body
    assert edge.call("POST", path, json={**good, "surprise": 1}).status_code == 400
    assert edge.call("POST", path, json=good, params={"dryrun": "true"}).status_code == 400
    assert edge.call("POST", path, json=good, params={"dry_run": "maybe"}).status_code == 400
    assert edge.call("POST", path, json=good, headers={"Idempotency-Key": "a\tb"}).status_code == 400
    assert edge.rows() == before


def test_what_is_accepted_is_recorded_and_nothing_else(edge: Edge) -> None:
    with edge.registry.write() as session:
        session.add(License(email=INSTANCE, server="elsewhere", is_active=True))
    accepted = {}
    for path, body in {**BILLING, **OPS}.items():
        answer = edge.call("POST", path, json=body)
        assert answer.status_code == 202, (path, answer.text)
        assert answer.headers["Location"] == f"/api/operations/{answer.json()['operation_id']}"
        accepted[answer.json()["operation_id"]] = path
    with edge.registry.read() as session:
        rows = {row.id: row for row in session.scalars(select(Operation))}
        assert set(rows) == set(accepted)
        for row in rows.values():
            assert (row.state, row.attempts, row.requested_by) == ("pending", 0, "api:ops")
    for number in accepted:
        shown = edge.call("GET", f"/api/operations/{number}", "billing").json()
        assert (shown["id"], shown["state"], shown["result"]) == (number, "pending", None)


def test_who_may_cancel_what_and_how(edge: Edge) -> None:
    def submitted(kind: str, **asked: Any) -> str:
        with edge.registry.write() as session:
            return f"/api/operations/{queue.submit(session, kind, asked, 'api:ops').id}/cancel"

    repair = submitted("reconcile", node=NODE)
    removal = submitted("remove", instance=INSTANCE)
    answer = edge.call("POST", repair, "billing")
    assert answer.status_code == 403
    assert "to cancel a reconcile" in answer.json()["detail"]
    assert edge.call("POST", removal, "read").status_code == 403
    before = edge.rows()
    planned = edge.call("POST", f"{removal}?dry_run=true", "billing")
    assert (planned.status_code, planned.json()["state"]) == (200, "canceled")
    assert edge.call("POST", removal, "billing", json={"why": "x"}).status_code == 400
    assert edge.call("POST", f"{removal}?dryrun=true", "billing").status_code == 400
    assert edge.rows() == before
    again = {"headers": {"Idempotency-Key": "once"}}
    canceled = edge.call("POST", removal, "billing", **again)
    assert (canceled.status_code, canceled.json()["state"]) == (202, "canceled")
    assert edge.call("POST", removal, "billing", **again).json() == canceled.json()
    assert edge.call("POST", removal, "billing").status_code == 409
    assert [(one.actor, one.action, one.result) for one in edge.audit()] == [
        ("api:billing", "api call", "refused"),
        ("api:read", "api call", "refused"),
        ("api:billing", "remove", "canceled"),
        ("api:billing", "api call", "refused"),
    ]


def test_the_stream_of_events_has_the_last_steps_of_the_run(edge: Edge) -> None:
    """They are written a moment after the playbook has written that the operation is done."""
    with edge.registry.write() as session:
        number = queue.submit(session, "remove", {"instance": INSTANCE}, "api:billing").id

    def change(**more: Any) -> None:
        with edge.registry.write() as session:
            if more:
                session.execute(update(Operation).where(Operation.id == number).values(**more))
            else:
                queue.tell(session, [number], "progress", {"step": "done", "task": "Publish", "node": NODE})

    def end() -> None:
        time.sleep(0.6)
        change(state="succeeded", finished_at=now())
        time.sleep(0.2)
        change()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end)
        told = edge.call("GET", f"/api/operations/{number}/events").text
        ended.result()
    assert re.findall("event: (.*)", told) == ["pending", "progress", "succeeded"]


def test_a_refused_change_is_audited(edge: Edge) -> None:
    answer = edge.call("POST", "/api/disconnect_instance/", json={"email": "nobody@example.com"})
    assert answer.status_code == 404
    assert answer.json() == {"status": "error", "message": "no instance is called nobody@example.com"}
    (entry,) = edge.audit()
    assert (entry.actor, entry.action, entry.subject, entry.result) == (
        "api:ops",
        "disconnect",
        "nobody@example.com",
        "refused",
    )
