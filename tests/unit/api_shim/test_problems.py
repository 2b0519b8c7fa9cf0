"""Errors, by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import errors
from api_shim.problems import Problem
from tests.unit.api_shim import on_sqlite
from tests.unit.api_shim.edge import INSTANCE, LOOKS, Edge

registry_url = on_sqlite.registry_url

SEEDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/api/disconnect_instance": lambda text: {"status": "error", "message": text},
    "/remove_instances": lambda text: {"status": "error", "message": text},
    "/api/transfer_instance": lambda text: {"error": text},
    "/api/drift/nodes": lambda text: {"status": False, "message": text},
    "/api/drift": lambda text: {"status": False, "message": text},
    "/api/nodes/x/y/z": lambda text: {"status": False, "message": text},
}
RAISED = [
    (Problem(418, "tea"), 418, "tea"),
    (errors.Invalid("weight", "is heavy"), 400, "weight: is heavy"),
    (errors.NotFound("nobody"), 404, "nobody"),
    (errors.Conflict("no"), 409, "no"),
    (errors.Busy("busy"), 409, "busy"),
    (errors.Full("full"), 409, "full"),
    (errors.NotUsable("at db.example.com"), 503, None),
    (errors.RegistryError("secret"), 500, None),
    (RuntimeError("secret"), 500, None),
    (RecursionError("secret"), 500, None),
]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", [*SEEDS, "/api/operations/x", "/elsewhere"])
def test_every_error_has_the_shape_of_its_path(edge: Edge, path: str, slash: str) -> None:
    raised: list[Exception] = []

    @edge.app.post(path)
    def fails() -> None:
        raise raised[0]

    # Before the path's own.
    edge.app.router.routes.insert(0, edge.app.router.routes.pop())
    for error, status, text in RAISED:
        raised[:] = [error]
        answer = edge.client.post(path + slash)
        assert answer.status_code == status
        assert "secret" not in answer.text
        assert "db.example.com" not in answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["X-Request-ID"]
        if path in SEEDS:
            assert answer.headers["Content-Type"] == "application/json"
            told = answer.json().get("message") or answer.json()["error"]
            assert answer.json() == SEEDS[path](told)
        else:
            assert answer.headers["Content-Type"] == "application/problem+json"
            body = answer.json()
            told = body["detail"]
            assert body["status"] == status
            assert body["instance"] == path
            assert body["request_id"] == answer.headers["X-Request-ID"]
            assert {"type", "title"} <= set(body)
            assert body.get("field") == ("weight" if status == 400 else None)
        assert text is None or told == text


@pytest.mark.parametrize("path", SEEDS)
def test_errors_from_before_the_routes_have_it_too(edge: Edge, path: str) -> None:
    for answer, status in (
        (edge.client.post(path, content=b"x" * (1024 * 1024 + 1)), 413),
        (edge.client.delete(path + "/nowhere/at/all"), 404),
    ):
        assert answer.status_code == status
        if status == 413:
            told = answer.json().get("message") or answer.json()["error"]
            assert answer.json() == SEEDS[path](told)


def test_the_seed_has_a_sentence_for_the_wrong_method_of_transfer(edge: Edge) -> None:
    for path in ("/api/transfer_instance", "/api/transfer_instance/"):
        answer = edge.client.get(path)
        assert (answer.status_code, answer.json()) == (405, {"error": "POST method required"})
        assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/nodes", {"GET", "HEAD", "POST"}),
        ("/api/nodes/x", {"GET", "HEAD", "PUT", "DELETE"}),
        ("/api/instances", {"GET", "HEAD", "POST"}),
        ("/", {"GET", "HEAD"}),
        ("/metrics", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_all_that_are_right(edge: Edge, path: str, allowed: set[str]) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        if method not in allowed:
            answer = edge.client.request(method, path)
            assert answer.status_code == 405
            assert set(answer.headers["Allow"].split(", ")) == allowed


def test_no_path_is_redirected_or_html(edge: Edge) -> None:
    for path in (
        "/nix",
        "/nix/",
        "/nix//",
        "/api",
        "/api/nodes//",
        "/API/NODES",
        "/%00",
        "/..%2f..%2fetc/passwd",
        "/" + "a" * 9000,
    ):
        answer = edge.client.get(path)
        assert answer.status_code == 404
        assert "json" in answer.headers["Content-Type"]
        assert len(answer.content) < 1000


def test_what_is_wrong_is_named_and_long_values_are_not_repeated(edge: Edge) -> None:
    def told(**fields: Any) -> str:
        answer = edge.call(
            "POST", "/api/nodes", json={"name": "a.example.com", "ip_pool_cidr": "10.9.0.0/16"} | fields
        )
        assert answer.status_code == 400
        assert len(answer.content) < 700
        return str(answer.json()["message"])

    assert told(weight="x" * 500000).startswith("weight: ")
    assert told(colour="red") == "colour: is no field of this call"
    assert "aaaa" in told(**{"a" * 100000: 1})
    assert told(name=None).startswith("name: ")
    assert "ip_pool_cidr" in told(ip_pool_cidr="10.9.0.0/99")
    answer = edge.call("POST", "/api/nodes", json={})
    assert answer.json()["message"] in ("name: is needed", "ip_pool_cidr: is needed")
    assert edge.call("POST", "/api/nodes").status_code == 400
    answer = edge.call("POST", "/api/disconnect_instance/", json={"mail": INSTANCE, "x" * 10000: 1})
    assert answer.json()["message"] == "email: is needed; mail: is no field of this call"
    answer = edge.call("POST", "/api/nodes?dry_run=yes", json={})
    assert answer.json()["message"] == "dry_run: is neither true nor false"
    for body in ({"instance": INSTANCE}, {"body": INSTANCE}, {}):
        answer = edge.call("POST", "/remove_instances/", json=body)
        assert (answer.status_code, answer.json()["message"]) == (
            400,
            'body: is to be {"body": {"instance": "user@example.com"}}',
        )
    answer = edge.call("POST", "/remove_instances/", json={"body": {"name": INSTANCE}})
    assert answer.json()["message"] == "body.instance: is needed; body.name: is no field of this call"
    answer = edge.call("GET", "/api/instances?limit=many", "read")
    assert answer.status_code == 400
    assert answer.json()["field"] == "limit"


@pytest.mark.parametrize("path", [path for path in LOOKS if not path.endswith("health")])
def test_head_is_get_without_a_body(edge: Edge, path: str) -> None:
    answer = edge.call("HEAD", path, "read")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["Content-Length"]) == len(edge.call("GET", path, "read").content)
