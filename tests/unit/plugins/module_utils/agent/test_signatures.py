"""What is signed, and what no signature passes for."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import signatures
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.signatures import sign, verify

SECRET = "0123456789abcdef" * 4
PATH, BODY, WHEN = "/v1/wg/wg0/syncconf", b'{"config": "eA=="}', "1700000000"


def test_the_signature_is_that_of_the_documents() -> None:
    message = f"POST|{PATH}|{BODY.decode()}|{WHEN}"
    expected = hmac.new(SECRET.encode(), message.encode(), hashlib.sha256).hexdigest()
    assert sign(SECRET, "POST", PATH, BODY, int(WHEN)) == expected
    assert verify([SECRET], expected, "POST", PATH, BODY, WHEN)
    assert signatures.headers(SECRET, "POST", PATH, BODY, WHEN) == {
        "X-Signature": expected,
        "X-Timestamp": WHEN,
    }


RIGHT = sign(SECRET, "POST", PATH, BODY, WHEN)


@pytest.mark.parametrize(
    ("method", "path", "body", "when", "signature"),
    [
        ("GET", PATH, BODY, WHEN, RIGHT),
        ("POST", PATH + "/", BODY, WHEN, RIGHT),
        ("POST", PATH + "?x", BODY, WHEN, RIGHT),
        ("POST", PATH, BODY[:-1], WHEN, RIGHT),
        ("POST", PATH, BODY + b" ", WHEN, RIGHT),
        ("POST", PATH, b'{"max_removals": 1, "config": "eA=="}', WHEN, RIGHT),
        ("POST", PATH, BODY, str(int(WHEN) + 1), RIGHT),
        ("POST", PATH, BODY, f"0{WHEN}", RIGHT),
        ("POST", PATH, BODY, WHEN, RIGHT.upper()),
        ("POST", PATH, BODY, WHEN, RIGHT[:-1]),
        ("POST", PATH, BODY, WHEN, RIGHT + "0"),
        ("POST", PATH, BODY, WHEN, ""),
        ("POST", PATH, BODY, WHEN, "é" * 64),
        ("POST", PATH, BODY, "", RIGHT),
        ("POST", PATH, BODY, "-1", RIGHT),
        ("POST", PATH, BODY, "٣", RIGHT),
    ],
)
def test_anything_else_is_not_signed(method: str, path: str, body: bytes, when: str, signature: str) -> None:
    assert not verify([SECRET], signature, method, path, body, when)


def test_one_text_is_one_request() -> None:
    """With a | in the path, what is the path's and what the body's would be anyone's guess."""
    with pytest.raises(ValueError, match="path"):
        sign(SECRET, "POST", "/a|b", b"c", 1)
    with pytest.raises(ValueError, match="digits"):
        sign(SECRET, "POST", "/a", b"c", "1|2")
    shifted = sign(SECRET, "POST", "/a", b"b|c", 1)
    assert not verify([SECRET], shifted, "POST", "/a|b", b"c", "1")
    assert not verify([SECRET], sign(SECRET, "POST", "/a", b"b|1", 2), "POST", "/a", b"b", "1|2")


def test_each_of_several_secrets_is_valid_and_no_other() -> None:
    old, new = "o" * 40, "n" * 40
    for secret in (old, new):
        signature = sign(secret, "GET", "/", b"", WHEN)
        assert verify([new, old], signature, "GET", "/", b"", WHEN)
        assert not verify(["x" * 40], signature, "GET", "/", b"", WHEN)
        assert not verify([], signature, "GET", "/", b"", WHEN)


@pytest.mark.parametrize(
    ("off", "timely"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)]
)
def test_a_clock_may_be_300_seconds_off(off: int, timely: bool) -> None:
    assert signatures.timely(str(1700000000 + off), 1700000000.0) is timely
