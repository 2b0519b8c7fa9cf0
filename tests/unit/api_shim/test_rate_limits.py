"""How often."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends
from pydantic import ValidationError

from api_shim import rate_limits
from api_shim.auth import caller
from api_shim.rate_limits import RateLimits, limited, parse
from api_shim.settings import Settings
from tests.unit.api_shim.edge import NOBODY, Edge


@pytest.fixture
def settings() -> Settings:
    return Settings(
        rate_limit_node_update="3/minute",
        rate_limit_drift_node="2/minute",
        rate_limit_drift_all="",
        rate_limit_reconcile="2/hour",
        wait_seconds=0,
    )


def test_updates_of_nodes_are_limited_by_key(edge: Edge) -> None:
    for left in (2, 1, 0):
        answer = edge.call("PUT", "/api/nodes/{node_id}", json={"weight": left})
        assert answer.status_code == 200
        assert answer.headers["RateLimit-Policy"] == '"node-update";q=3;w=60'
        label, remaining, reset = answer.headers["RateLimit"].split(";")
        assert (label, remaining) == ('"node-update"', f"r={left}")
        assert 1 <= int(reset.removeprefix("t=")) <= 60
    before = edge.rows()
    for weight in (7, 8, 9):
        answer = edge.call("PUT", "/api/nodes/{node_id}", json={"weight": weight})
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.headers["RateLimit"].startswith('"node-update";r=0;t=')
        assert answer.headers["RateLimit-Policy"] == '"node-update";q=3;w=60'
        assert answer.json()["status"] is False
    assert edge.rows() == before
    # Who may not call at all does not count, and another call has no such limit.
    assert edge.call("PUT", "/api/nodes/{node_id}", "read", json={}).status_code == 403
    assert edge.call("PUT", "/api/nodes/{node_id}", None, json={}).status_code == 401
    assert "RateLimit" not in edge.call("GET", "/api/nodes").headers


def test_what_is_refused_or_planned_or_repeated_does_not_count(edge: Edge) -> None:
    for _ in range(5):
        assert edge.call("PUT", "/api/nodes/{node_id}", json={"weight": "x"}).status_code == 400
        assert edge.call("PUT", "/api/nodes/{node_id}?dry_run=true", json={"weight": 1}).status_code == 200
        assert edge.call("PUT", f"/api/nodes/{NOBODY}", json={"weight": 1}).status_code == 404
        again: dict[str, Any] = {"json": {"weight": 2}, "headers": {"Idempotency-Key": "again"}}
        assert edge.call("PUT", "/api/nodes/{node_id}", **again).status_code == 200
    for left in (1, 0):
        answer = edge.call("PUT", "/api/nodes/{node_id}", json={"weight": 3})
        assert f"r={left};" in answer.headers["RateLimit"]


def test_repairs_count_when_they_are_recorded_and_plans_as_looks(edge: Edge) -> None:
    path = "/api/drift/nodes/{node_id}/reconcile"

    def statuses(times: int, where: str = path, **more: Any) -> list[int]:
        return [edge.call("POST", where, **more).status_code for _ in range(times)]

    assert statuses(3, json={"unknown": True}) == [400] * 3
    assert statuses(3, f"/api/drift/nodes/{NOBODY}/reconcile") == [404] * 3
    assert statuses(3, headers={"Idempotency-Key": "again"}) == [202, 409, 409]
    assert statuses(3, f"{path}?dry_run=true") == [202, 202, 429]
    assert statuses(2) == [202, 429]


def test_nodes_have_windows_of_their_own_and_made_up_ones_share_one(edge: Edge) -> None:
    def statuses(node: str, key: str = "read") -> list[int]:
        return [edge.call("GET", f"/api/drift/nodes/{node}", key).status_code for _ in range(3)]

    assert statuses(edge.node_id) == [202, 202, 429]
    assert statuses(edge.node_id.upper()) == [429, 429, 429]
    assert statuses(NOBODY) == [404, 404, 429]
    assert statuses(NOBODY, "ops") == [404, 404, 429]
    assert statuses("x") == [404, 404, 429]
    assert statuses("y") == [429, 429, 429]


def test_no_limit_no_headers(edge: Edge) -> None:
    @edge.app.get("/api/x", dependencies=[Depends(caller("read")), Depends(limited("rate_limit_drift_all"))])
    def x() -> None: ...

    for _ in range(20):
        answer = edge.call("GET", "/api/x", "read")
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers


def test_the_window_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    windows = RateLimits({"rate_limit_x": "2/minute"})
    assert windows.take("rate_limit_x", ["a"])[1] is None
    clock[0] += 20
    headers, wait = windows.take("rate_limit_x", ["a"])
    assert (wait, headers["RateLimit"]) == (None, '"x";r=0;t=40')
    assert windows.take("rate_limit_x", ["a"])[1] == 40
    assert windows.take("rate_limit_x", ["b"])[1] is None
    clock[0] += 41
    assert windows.take("rate_limit_x", ["a"])[1] is None
    assert windows.take("rate_limit_x", ["a"])[1] == 19


def test_what_one_window_refuses_does_not_count_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    windows = RateLimits({"rate_limit_x": "1/second;3/hour"})
    headers, _ = windows.take("rate_limit_x", ["a"])
    assert headers["RateLimit-Policy"] == '"x";q=1;w=1, "x-2";q=3;w=3600'
    for _ in range(5):
        assert windows.take("rate_limit_x", ["a"])[1] == 1
    clock[0] += 2
    assert windows.take("rate_limit_x", ["a"])[1] is None


@pytest.mark.parametrize(
    "text",
    [
        "often",
        "10",
        "10/",
        "/minute",
        "0/minute",
        "-1/minute",
        "10/fortnight",
        "a/minute",
        "10/minute;x",
        "5/0 minutes",
    ],
)
def test_what_is_no_limit_fails_at_start(text: str) -> None:
    with pytest.raises(ValidationError, match="is no limit such as 10/minute"):
        Settings(rate_limit_drift_node=text)


def test_limits_are_read() -> None:
    assert parse("") == parse("  ") == []
    assert [(item.amount, item.get_expiry()) for item in parse("10/minute; 5 per 2 hours")] == [
        (10, 60),
        (5, 7200),
    ]
    assert rate_limits.PREFIX == "rate_limit_"
