"""Every answer has an id."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.unit.api_shim import on_sqlite
from tests.unit.api_shim.edge import Edge

registry_url = on_sqlite.registry_url


@pytest.mark.parametrize("path", ["/", "/nix", "/api/nodes", "/metrics", "/docs", "/openapi.json", "/readyz"])
def test_the_callers_id_is_taken_when_it_is_a_plain_one(edge: Edge, path: str) -> None:
    for good in ("a", "A-b_c.9", "x" * 128, str(uuid.uuid4())):
        assert edge.client.get(path, headers={"X-Request-ID": good}).headers["X-Request-ID"] == good
    for bad in ("", "x" * 129, "a b", "a\tb", "{{ 7*7 }}", "<b>", "a;b", b"\xc3\xa4"):
        given = edge.client.get(path, headers={b"X-Request-ID": bad}).headers["X-Request-ID"]
        assert uuid.UUID(given).version == 4


def test_ids_are_not_mixed_up_and_are_in_the_log(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [edge.client.get("/").headers["X-Request-ID"] for _ in range(5)]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["request_id"] for line in lines if line["event"] == "request"] == ids
    assert len(set(ids)) == 5


def test_too_long_a_body_has_one_too(edge: Edge) -> None:
    answer = edge.client.post("/api/nodes", content=b"x" * 2_000_000, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (413, "mine")
