"""The log: one line per request, and nothing secret."""

from __future__ import annotations

import json
import logging
from typing import Literal

import pytest
import structlog

from api_shim import logs
from api_shim.settings import Settings
from tests.unit.api_shim import on_sqlite
from tests.unit.api_shim.edge import INSTANCE, Edge
from tests.unit.plugins.plugin_utils.registry.rows import any_key

registry_url = on_sqlite.registry_url

KEY = any_key()
OURS = "vpf_" + "aB3_-" * 8 + "xyz"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_request_is_one_line_by_its_route(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    edge.call("GET", "/api/instances/{name}", "read")
    edge.call("POST", "/api/nodes", "billing", json={})
    edge.client.get(f"/{INSTANCE}?password=hunter2")
    edge.client.request("BREW", "/")
    edge.client.head("/healthz/")
    told = [line for line in lines(capsys) if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"], line["caller"]) for line in told] == [
        ("GET", "/api/instances/{name}", 200, "read"),
        ("POST", "/api/nodes", 403, "billing"),
        ("GET", "unmatched", 404, None),
        ("other", "/", 405, None),
        ("HEAD", "/healthz", 200, None),
    ]
    assert all(isinstance(line["duration_ms"], float) and line["request_id"] for line in told)
    assert not any(text in json.dumps(told) for text in (INSTANCE, "hunter2"))


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_comes_through(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "text"]
) -> None:
    logs.configure(Settings(log_format=log_format))
    hidden = [KEY, OURS, "hunter2", "s3cret-token-of-awx", "eyJhbGciOi.abc"]
    log = structlog.stdlib.get_logger("anything")
    log.info(f"PrivateKey = {KEY} and {OURS}", peers=[{"preshared_key": "hunter2", "public": [KEY]}])
    log.info(
        "x",
        private_key="hunter2",
        authorization="hunter2",
        api_key="hunter2",
        awx_token="hunter2",
        X_Secret="hunter2",
        key="hunter2",
    )
    log.info(
        "x",
        url="postgresql://user:hunter2@db.example.com/x",
        nested={"a": {"password": "hunter2", "b": f"x/{KEY}"}},
    )
    log.info(
        "x",
        headers={"Authorization": "Bearer eyJhbGciOi.abc", "x-api-key": OURS},
        text="Bearer eyJhbGciOi.abc",
    )
    log.info("%s is it", OURS)
    log.info("x", raw=KEY.encode(), error=ValueError(OURS))
    logging.getLogger("sqlalchemy.engine").warning(
        "password=hunter2 key %s of %s", KEY, "redis://:hunter2@x/0"
    )
    logging.getLogger("uvicorn.error").error('{"token": "s3cret-token-of-awx"}')
    try:
        try:
            raise ValueError(f"inner {KEY}")
        except ValueError as error:
            raise RuntimeError(f"postgresql://u:hunter2@h/d {OURS}") from error
    except RuntimeError as error:
        log.error("it failed", exc_info=error)
        log.exception("again")
        logging.getLogger("uvicorn.error").exception("and again")
    told = capsys.readouterr().err
    assert "it failed" in told
    assert "RuntimeError" in told
    assert "db.example.com" in told
    assert told.count(logs.HIDDEN) > 20
    for secret in hidden:
        assert secret not in told


def test_an_unforeseen_error_is_logged_with_its_id_and_without_secrets(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    @edge.app.get("/x")
    def fails() -> None:
        raise RuntimeError(f"key {KEY}")

    answer = edge.client.get("/x", headers={"X-Request-ID": "here", "X-API-Key": edge.keys["ops"]})
    assert answer.status_code == 500
    told = lines(capsys)
    assert [line["event"] for line in told] == ["a request failed", "request"]
    assert {line["request_id"] for line in told} == {"here"}
    assert "RuntimeError: key [redacted]" in str(told[0]["exception"])
    assert KEY not in json.dumps(told)


def test_calls_leave_no_secret_in_log_or_answer(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        edge.call("GET", path, "read").text
        for path in (
            "/api/nodes",
            "/api/instances",
            "/api/instances/{name}",
            "/metrics",
            "/docs",
            "/openapi.json",
        )
    ]
    answers.append(
        edge.call(
            "PUT", "/api/nodes/{node_id}", json={"country": edge.secrets[0], "weight": edge.secrets[1]}
        ).text
    )
    answers.append(edge.call("POST", "/api/nodes", json={edge.secrets[0]: 1, "name": edge.secrets[1]}).text)
    told = capsys.readouterr().err
    for secret in (*edge.secrets, *edge.keys.values()):
        assert secret not in told
    for secret in (*edge.secrets[2:], *edge.keys.values()):
        assert not any(secret in answer for answer in answers)


def test_the_log_level_holds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_level="error"))
    structlog.stdlib.get_logger("x").info("quiet")
    structlog.stdlib.get_logger("x").error("loud")
    told = capsys.readouterr().err
    assert "loud" in told
    assert "quiet" not in told
