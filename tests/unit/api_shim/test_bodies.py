"""How long bodies may be, and what JSON is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api_shim import bodies
from api_shim.bodies import LONGEST, what_is_wrong
from tests.unit.api_shim import on_sqlite
from tests.unit.api_shim.edge import Edge

registry_url = on_sqlite.registry_url

NODE = {"name": "node2.example.com", "ip_pool_cidr": "10.9.0.0/16"}

BAD = {
    "no JSON": b"weight=1",
    "cut off": b'{"weight": 1',
    "two": b'{"weight": 1} {"weight": 2}',
    "single quotes": b"{'weight': 1}",
    "twice": b'{"weight": 1, "weight": 2}',
    "twice inside": b'{"a": [{"b": {"c": 1, "c": 1}}]}',
    "twice by escape": b'{"weight": 1, "w\\u0065ight": 2}',
    "NaN": b'{"weight": NaN}',
    "Infinity": b'{"weight": Infinity}',
    "-Infinity": b'{"weight": -Infinity}',
    "huge float": b'{"weight": 1e999}',
    "huge integer": b'{"weight": 1' + b"0" * 5000 + b"}",
    "lists": b"[" * 100000 + b"]" * 100000,
    "objects": b'{"a":' * 50000 + b"1" + b"}" * 50000,
    "UTF-8": b'{"name": "\xff\xfe"}',
    "Latin-1": '{"country": "Österreich"}'.encode("latin-1"),
    "UTF-16": '{"weight": 1}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"weight": 1}',
    "raw surrogate": b'{"name": "\xed\xa0\x80"}',
    "NUL": b'{"name": "a\\u0000b"}',
    "NUL in a key": b'{"a\\u0000b": 1}',
    "raw NUL": b'{"name": "a\x00b"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "lone low surrogate": b'{"a": [["\\udc00"]]}',
    "blank": b"   ",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_may_be_read_in_two_ways_is_refused(edge: Edge, body: bytes) -> None:
    before = edge.rows()
    for method, path in (("POST", "/api/nodes"), ("PUT", "/api/nodes/{node_id}")):
        answer = edge.call(method, path, content=body)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("The body ")
        assert len(answer.content) < 200
    assert edge.rows() == before


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_json_that_is_no_object_is_refused(edge: Edge, body: bytes) -> None:
    assert what_is_wrong(body) is None
    assert edge.call("POST", "/api/nodes", content=body).status_code == 400
    assert edge.call("PUT", "/api/nodes/{node_id}", content=body).status_code == 400


@pytest.mark.parametrize(
    "sort",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml; a=b"],
)
def test_it_is_json_whatever_it_is_called(edge: Edge, sort: str | None) -> None:
    headers = {"Content-Type": sort} if sort else {}
    answer = edge.call("POST", "/api/nodes", content=json.dumps(NODE).encode(), headers=headers)
    assert answer.status_code == 201
    answer = edge.call("POST", "/api/nodes", content=b'{"name":', headers=headers)
    assert answer.status_code == 400


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert what_is_wrong(b'{"a": "\\ud83d\\ude00 \\u00e4"}') is None


def test_a_body_may_be_one_mebibyte_and_not_a_byte_more(edge: Edge) -> None:
    def in_chunks(length: int) -> Iterator[bytes]:
        for start in range(0, length, 65536):
            yield b" " * min(65536, length - start)

    for path in ("/api/nodes", "/nix", "/api/transfer_instance/"):
        for key in ("ops", None):
            assert edge.call("POST", path, key, content=b" " * (LONGEST + 1)).status_code == 413
            assert edge.call("POST", path, key, content=in_chunks(LONGEST + 1)).status_code == 413
    text = json.dumps(NODE).encode()
    answer = edge.call("POST", "/api/nodes", content=text + b" " * (LONGEST - len(text)))
    assert answer.status_code == 201


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "+5", "١", "one", "5,5", "9" * 100])
def test_a_length_that_is_none_is_refused(edge: Edge, length: str) -> None:
    sent = asyncio.run(
        raw_call(
            edge, [(b"content-length", length.encode()), (b"x-api-key", edge.keys["ops"].encode())], [b"{}"]
        )
    )
    assert sent[0]["status"] == (413 if length.startswith("99") else 400)


def test_a_length_that_lies_does_not_help(edge: Edge) -> None:
    headers = [(b"content-length", b"2"), (b"x-api-key", edge.keys["ops"].encode())]
    sent = asyncio.run(raw_call(edge, headers, [b" " * 400_000] * 3))
    assert sent[0]["status"] == 413


def test_a_body_that_does_not_come_ends(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    sent = asyncio.run(raw_call(edge, [], [b"{"], ends=False))
    assert sent[0]["status"] == 408


async def raw_call(
    edge: Edge, headers: list[tuple[bytes, bytes]], chunks: list[bytes], ends: bool = True
) -> list[dict[str, Any]]:
    """What is sent back to a POST whose body comes in these chunks."""
    left = list(chunks)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/nodes",
        "raw_path": b"/api/nodes",
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.9", 5),
        "server": ("192.0.2.1", 80),
    }
    await edge.app(scope, receive, send)
    return sent
