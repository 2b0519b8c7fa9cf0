"""Calls that bear an Idempotency-Key: which of them are the same."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.fernet import Fernet
from fastapi import Request

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    ApiKey,
    Operation,
    new_id,
)
from api_shim import idempotency
from api_shim.idempotency import Call
from api_shim.key_ring import Caller
from api_shim.problems import Problem
from tests.postgres.opened import opened

WHO = Caller("key-1", "billing", frozenset(["billing"]))


@pytest.fixture
def registry(sqlite_registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    made = opened(sqlite_registry_url)
    with made.write() as session:
        for number in (1, 2):
            session.add(ApiKey(id=f"key-{number}", name=f"billing{number}", key_hash=str(number), scopes=[]))
        session.add(Operation(id="operation-1", kind="disconnect"))
    return made


def call_of(
    key: str | None,
    method: str = "POST",
    path: str = "/api/disconnect_instance/",
    query: str = "",
    body: bytes = b'{"email": "alice@example.com"}',
    who: Caller = WHO,
) -> Call | None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "server": ("localhost", 80),
        "scheme": "http",
        "headers": [(b"idempotency-key", key.encode("latin-1"))] if key is not None else [],
    }
    return asyncio.run(idempotency.call_of(Request(scope, receive), who))


def a_call(key: str = "a", request_hash: str = "h", api_key_id: str = "key-1") -> Call:
    return Call(api_key_id, key, request_hash)


def test_without_a_key_nothing_is_remembered() -> None:
    assert call_of(None) is None


def test_the_same_call_is_the_same() -> None:
    assert call_of("a") == call_of("a") == call_of("a", path="/api/disconnect_instance")
    assert call_of("a") != call_of("b")
    assert call_of("a") != call_of("a", who=Caller("key-2", "billing", frozenset()))


def test_every_part_of_a_call_tells_it_from_others() -> None:
    calls = [
        call_of("a"),
        call_of("a", method="PUT"),
        call_of("a", path="/remove_instances/"),
        call_of("a", query="dry_run=true"),
        call_of("a", body=b"{}"),
        # What belongs to one part must not pass for another's.
        call_of("a", path="/api/disconnect_instance/dry_run=true"),
        call_of("a", query="x", body=b"y"),
        call_of("a", query="", body=b"x\0y"),
    ]
    assert len({call.request_hash for call in calls if call is not None}) == len(calls)


@pytest.mark.parametrize("key", ["", " ", " a", "a ", "a\tb", "a\nb", "\x7f", "é", "a" * 256, "a\x00"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(Problem) as caught:
        call_of(key)
    assert caught.value.status == 400


@pytest.mark.parametrize("key", ["a", "a b", "a" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324", '"quoted"'])
def test_a_key_that_is_one(key: str) -> None:
    found = call_of(key)
    assert found is not None
    assert found.key == key


def test_a_call_is_found_by_its_key_and_its_caller(registry: Registry) -> None:
    with registry.write() as session:
        assert idempotency.find(session, a_call()) is None
        idempotency.note(session, a_call(), "operation-1")
    with registry.read() as session:
        found = idempotency.find(session, a_call())
        assert found is not None
        assert (found.operation_id, found.status, found.answer) == ("operation-1", None, None)
        assert idempotency.find(session, a_call(api_key_id="key-2", request_hash="other")) is None
        with pytest.raises(Problem) as caught:
            idempotency.find(session, a_call(request_hash="other"))
        assert caught.value.status == 422


def test_the_first_answer_stays(registry: Registry) -> None:
    with registry.write() as session:
        idempotency.note(session, a_call(), "operation-1")
    for status, answer in ((500, {"n": 1}), (200, {"n": 2})):
        with registry.write() as session:
            idempotency.keep(session, a_call(), status, answer)
    with registry.read() as session:
        found = idempotency.find(session, a_call())
        assert found is not None
        assert (found.status, found.answer) == (500, {"n": 1})


def test_what_was_not_noted_is_not_kept(registry: Registry) -> None:
    with registry.write() as session:
        idempotency.keep(session, a_call(key=new_id()), 200, {})
    with registry.read() as session:
        assert idempotency.find(session, a_call()) is None
