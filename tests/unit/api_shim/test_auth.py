"""Who may call what."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import Depends
from sqlalchemy import event, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import ApiKey, now
from api_shim import key_ring, keys
from api_shim.auth import caller
from api_shim.reachability import Reached
from tests.unit.api_shim.edge import CHANGES, GUARDED, LOOKS, Edge

BAD_KEYS = ["unknown", "expired", "revoked"]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_good_key_nothing_is_done(edge: Edge, method: str, path: str) -> None:
    before = edge.rows()
    answers = [edge.call(method, path, None)] + [edge.call(method, path, key) for key in BAD_KEYS]
    made_up = [
        "",
        " ",
        "vpf_",
        "x" * 5000,
        "vpf_" + "A" * 42,
        "vpf_" + "A" * 44,
        "vpf_' OR 1=1 --",
        edge.keys["ops"][:-1],
    ]
    answers += [edge.client.request(method, edge.path(path), headers={"X-API-Key": key}) for key in made_up]
    answers += [
        edge.client.request(method, edge.path(path), headers={"Authorization": text})
        for text in (
            edge.keys["ops"],
            f"Basic {edge.keys['ops']}",
            "Bearer",
            "Bearer ",
            "Bearer x y z",
            b"\xff\x80",
        )
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    # Nothing tells an expired key from one that never was.
    assert len({answer.json().get("message", answer.json().get("detail")) for answer in answers}) == 1
    after = edge.rows()
    refused = after.pop("audit_entry")
    assert len(refused) - len(before.pop("audit_entry")) == (0 if method == "GET" else 2)
    assert after == before


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("key", ["billing", "read"])
def test_the_wrong_scope_changes_nothing_and_is_recorded(
    edge: Edge, method: str, path: str, key: str
) -> None:
    before = edge.rows()
    answer = edge.call(method, path, key, json={"weight": 1})
    assert answer.status_code == 403
    assert "ops" in answer.json()["message"]
    (row,) = edge.audit()
    assert (row.actor, row.subject, row.result) == (f"api:{key}", f"{method} {path}", "refused")
    after = edge.rows()
    del before["audit_entry"], after["audit_entry"]
    assert after == before


@pytest.mark.parametrize("path", LOOKS)
def test_looks_are_for_readers_and_leave_nothing(
    edge: Edge, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reachable(*_: object) -> Reached:
        return Reached(None)

    monkeypatch.setattr("api_shim.routes.node_health.reachability", reachable)
    before = edge.rows()
    assert edge.call("GET", path, "billing").status_code == 403
    assert edge.call("GET", path, "read").status_code == 200
    assert edge.call("GET", path, "ops").status_code == 200
    bearer = {"Authorization": f"Bearer {edge.keys['read']}"}
    assert edge.client.get(edge.path(path), headers=bearer).status_code == 200
    assert edge.client.get(edge.path(path) + "/", headers=bearer).status_code == 200
    assert edge.rows() == before


def test_who_has_no_key_learns_nothing_of_what_is_taken(edge: Edge) -> None:
    for body in (b"{", b'{"a":1,"a":2}', b"\xff", b'{"nothing":1}'):
        assert edge.call("POST", "/api/nodes", None, content=body).status_code == 401
        assert edge.call("POST", "/api/nodes", "read", content=body).status_code == 403
        assert edge.call("POST", "/api/nodes", "ops", content=body).status_code == 400


def test_a_read_key_may_never_change_even_where_reading_is_a_scope(edge: Edge) -> None:
    with pytest.raises(ValueError, match="scopes"):
        caller("root")
    with pytest.raises(ValueError, match="scopes"):
        caller()

    @edge.app.post("/api/x", dependencies=[Depends(caller("billing", "read"))])
    @edge.app.get("/api/x", dependencies=[Depends(caller("billing", "read"))])
    def x() -> None: ...

    assert edge.call("POST", "/api/x", "read").status_code == 403
    assert edge.call("POST", "/api/x", "billing").status_code == 200
    assert edge.call("GET", "/api/x", "read").status_code == 200
    assert edge.call("GET", "/api/x", "billing").status_code == 200


def test_a_revoked_key_ends_within_five_seconds_and_a_busy_one_is_not_looked_up(edge: Edge) -> None:
    clock = [1000.0]
    ring = key_ring.KeyRing(edge.registry, clock=lambda: clock[0])
    statements: list[str] = []
    event.listen(edge.registry.engine, "before_cursor_execute", lambda *all: statements.append(all[2]))
    key = edge.keys["ops"]
    assert ring.look_up(key) is not None
    ring.close()
    del statements[:]
    found = ring.look_up(key)
    assert found is not None
    assert found.state == "active"
    assert statements == []
    with edge.registry.write() as session:
        keys.revoke(session, "ops", "tests")
    clock[0] += 5
    found = ring.look_up(key)
    assert found is not None
    assert found.state == "revoked"


def test_an_expired_key_ends_at_once_though_it_is_remembered(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edge.call("GET", "/api/nodes", "read").status_code == 200
    monkeypatch.setattr(key_ring, "now", lambda: now() + timedelta(days=1, seconds=1))
    assert edge.call("GET", "/api/nodes", "read").status_code == 401


def test_the_last_use_is_noted_once_a_minute_and_never_in_the_way(edge: Edge) -> None:
    # A writer holds the registry: the call is answered all the same.
    with edge.registry.write():
        assert edge.call("GET", "/api/nodes", "read").status_code == 200
    edge.service.keys.close()
    with edge.registry.read() as session:
        used = dict(session.execute(select(ApiKey.name, ApiKey.last_used_at)).all())
    assert used["read"] is not None
    assert used["ops"] is None
    # It is closed: nothing is noted, nothing fails.
    assert edge.call("GET", "/api/nodes", "ops").status_code == 200


def test_a_registry_that_is_away_is_503_without_where_it_is(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise NotUsable("the registry (postgresql://db.example.com/x) cannot be used")

    monkeypatch.setattr(type(edge.registry), "read", away)
    for path in LOOKS:
        answer = edge.call("GET", path)
        assert answer.status_code == 503
        assert "example.com" not in answer.text.replace(edge.path(path), "").replace(
            "alice%40example.com", ""
        )
        assert answer.headers["Retry-After"]
