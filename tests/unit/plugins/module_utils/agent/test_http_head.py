"""Heads that two readers could understand in two ways are refused."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.http_head import BadRequest, parse_head


def head(*lines: str) -> bytes:
    return "\r\n".join(lines or ("GET / HTTP/1.1",)).encode("latin-1")


def test_a_head_in_full() -> None:
    found = parse_head(
        head(
            "POST /v1/health?x=%20 HTTP/1.1",
            "Host: node",
            "Content-LENGTH:  12 ",
            "X-A: 1",
            "x-a: 2",
            "Accept:",
        )
    )
    assert (found.method, found.path, found.length) == ("POST", "/v1/health?x=%20", 12)
    assert found.headers == {"host": "node", "content-length": "12", "x-a": "1, 2", "accept": ""}
    assert found.keep_alive
    assert not found.expects_continue


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", None, True), ("1.1", "close", False), ("1.1", "TE, Close", False),
        ("1.0", None, False), ("1.0", "Keep-Alive", True),
    ],
)  # fmt: skip
def test_connections_are_kept_as_asked(version: str, connection: str | None, keeps: bool) -> None:
    more = [] if connection is None else [f"Connection: {connection}"]
    assert parse_head(head(f"GET / HTTP/{version}", *more)).keep_alive is keeps


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, ["GET  / HTTP/1.1"]),
        (400, ["GET /"]),
        (400, ["get / HTTP/1.1"]),
        (400, ["GET / HTTP/1.1 "]),
        (400, ["GET /\x01 HTTP/1.1"]),
        (400, ["GET /é HTTP/1.1"]),
        (400, ["GET http://node/ HTTP/1.1"]),
        (400, ["OPTIONS * HTTP/1.1"]),
        (505, ["GET / HTTP/2.0"]),
        (414, [f"GET /{'a' * 2048} HTTP/1.1"]),
        (400, ["GET / HTTP/1.1", "Host : node"]),
        (400, ["GET / HTTP/1.1", "no colon"]),
        (400, ["GET / HTTP/1.1", "A: 1", " folded"]),
        (400, ["GET / HTTP/1.1", "A: x\ny: z"]),
        (400, ["GET / HTTP/1.1", "A: x\x00"]),
        (400, ["GET / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"]),
        (400, ["GET / HTTP/1.1", "X-Signature: a", "x-signature: b"]),
        (400, ["GET / HTTP/1.1", "Content-Length: -1"]),
        (400, ["GET / HTTP/1.1", "Content-Length: +1"]),
        (400, ["GET / HTTP/1.1", "Content-Length: 1, 1"]),
        (400, ["GET / HTTP/1.1", "Content-Length: 0x1"]),
        (400, ["GET / HTTP/1.1", "Content-Length: ²"]),
        (411, ["POST / HTTP/1.1", "Transfer-Encoding: chunked"]),
        (411, ["POST / HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"]),
        (400, ["POST / HTTP/1.1", "Content-Encoding: gzip"]),
        (413, ["POST / HTTP/1.1", f"Content-Length: {limits.LONGEST_BODY + 1}"]),
        (413, ["POST / HTTP/1.1", f"Content-Length: {'9' * 20}"]),
        (417, ["POST / HTTP/1.1", "Expect: tea"]),
        (431, ["GET / HTTP/1.1", *["A: 1"] * 65]),
    ],
)
def test_what_is_refused(status: int, lines: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head(*lines))
    assert caught.value.status == status


@pytest.mark.parametrize("blanks", [" ", "\t", " \t"])
def test_a_line_of_blanks_is_read_in_no_time(blanks: str) -> None:
    # Where blanks can be matched in several ways, this takes hours.
    many = blanks * (16_000 // len(blanks))
    with pytest.raises(BadRequest, match="a header is none of HTTP"):
        parse_head(head("GET / HTTP/1.1", f"a:{many}\x01"))
    assert parse_head(head("GET / HTTP/1.1", f"a:{many}x{many}")).headers == {"a": "x"}
