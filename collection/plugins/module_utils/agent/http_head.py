# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of an HTTP/1.1 request, read strictly: whatever two readers could understand in two ways is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.limits import (
    LONGEST_BODY,
    LONGEST_PATH,
    MOST_HEADERS,
)

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
# No space before the colon, no line that continues the one before, no control characters. Nothing in it can be matched
# in two ways, or a line of nothing but blanks would take hours; the blanks around the value are cut off afterwards.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\x20-\x7e\t\x80-\xff]*)")
_SINGLE = frozenset(
    (
        "content-length",
        "host",
        "x-signature",
        "x-timestamp",
        "transfer-encoding",
        "expect",
        "content-encoding",
    )
)


class BadRequest(Exception):
    """A request that is refused before it is looked at. ``status`` is what it is answered with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Head:
    """A request line and its headers, names in small letters."""

    method: str
    path: str
    headers: Dict[str, str]
    length: int  # of the body, in bytes
    keep_alive: bool
    expects_continue: bool


def parse_head(raw: bytes) -> Head:
    """Read all up to, and without, the empty line. Raises BadRequest."""
    lines = raw.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(lines[0])
    if request is None:
        raise BadRequest(400, "the request line is none of HTTP")
    method, path = request.group(1).decode("ascii"), request.group(2).decode("ascii")
    if request.group(3) != b"1":
        raise BadRequest(505, "the agent speaks HTTP/1.1")
    if len(path) > LONGEST_PATH:
        raise BadRequest(414, f"the path is longer than {LONGEST_PATH} characters")
    if not path.startswith("/"):
        raise BadRequest(400, "the path does not begin with /")
    if len(lines) - 1 > MOST_HEADERS:
        raise BadRequest(431, f"more than {MOST_HEADERS} headers")
    headers: Dict[str, str] = {}
    for line in lines[1:]:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise BadRequest(400, "a header is none of HTTP")
        name, value = match.group(1).decode("ascii").lower(), match.group(2).strip(b" \t").decode("latin-1")
        if name in headers and name in _SINGLE:
            raise BadRequest(400, f"the header {name} is there twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(
        method,
        path,
        headers,
        _length(headers),
        _keep_alive(headers, minor=request.group(4)),
        _expects_continue(headers),
    )


def _length(headers: Dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "the body needs a Content-Length; no transfer encoding is understood")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest(400, "no content encoding is understood")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BadRequest(400, "Content-Length is not a number")
    if int(text) > LONGEST_BODY:
        raise BadRequest(413, f"the body is longer than {LONGEST_BODY} bytes")
    return int(text)


def _keep_alive(headers: Dict[str, str], minor: bytes) -> bool:
    words = [word.strip().lower() for word in headers.get("connection", "").split(",")]
    return "close" not in words and (minor != b"0" or "keep-alive" in words)


def _expects_continue(headers: Dict[str, str]) -> bool:
    expectation = headers.get("expect")
    if expectation is None:
        return False
    if expectation.lower() != "100-continue":
        raise BadRequest(417, "only 100-continue can be expected")
    return True


def answer_head(status: int, length: int, keep_alive: bool, extra: Dict[str, str]) -> bytes:
    """The head of an answer in JSON, up to and with the empty line."""
    lines = [
        f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Cache-Control: no-store",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in extra.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
