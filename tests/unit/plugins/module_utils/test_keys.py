from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import (
    KEY_PATTERN,
    ZERO_KEY,
    check_preshared_key,
    check_private_key,
    check_public_key,
    fingerprint,
    new_private_key,
)
from tests.unit.plugins.module_utils.generated import key, keys, private_key, public_keys

Check = Callable[[object, str], str | None]

GOOD = key(1)
BAD = {
    "nothing": None,
    "a number": 5,
    "bytes": GOOD.encode(),
    "empty, but for a space": " ",
    "too short": GOOD[1:],
    "too long": "A" + GOOD,
    "without padding": GOOD[:-1],
    "31 bytes": base64.b64encode(bytes(31)).decode(),
    "33 bytes": base64.b64encode(bytes(33)).decode(),
    "bits after the last byte": GOOD[:42] + "B=",
    "urlsafe": "-" + GOOD[1:],
    "a line after it": GOOD + "\n",
    "a space before it": " " + GOOD,
    "other digits": "\u0661" + GOOD[1:],
    "a megabyte": "A" * 1_000_000,
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("check", [check_public_key, check_private_key, check_preshared_key])
def test_what_is_no_key_is_refused_without_repeating_it(check: Check, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(value, "peers[3].some_key")
    assert caught.value.field == "peers[3].some_key"
    assert str(caught.value).startswith("peers[3].some_key: is not a WireGuard ")
    assert len(str(caught.value)) < 200
    if isinstance(value, str) and value.strip():
        assert value[2:12] not in str(caught.value)


@pytest.mark.parametrize("check", [check_public_key, check_private_key])
def test_the_zero_key_is_refused(check: Check) -> None:
    with pytest.raises(InvalidInput, match="all-zero"):
        check(ZERO_KEY, "f")


@pytest.mark.parametrize("none", ["", ZERO_KEY])
def test_no_preshared_key(none: str) -> None:
    assert check_preshared_key(none, "f") is None


@given(public_keys)
def test_keys_are_taken_as_they_are(text: str) -> None:
    assert check_public_key(text, "f") == check_preshared_key(text, "f") == text


@given(public_keys)
def test_private_keys_are_clamped_once_and_for_all(text: str) -> None:
    clamped = check_private_key(text, "f")
    assert check_private_key(clamped, "f") == clamped
    raw, given_raw = base64.b64decode(clamped), base64.b64decode(text)
    assert raw[1:31] == given_raw[1:31]
    assert raw[0] % 8 == 0
    assert 64 <= raw[31] < 128
    assert (raw[0] ^ given_raw[0]) & 248 == 0
    assert (raw[31] ^ given_raw[31]) & 63 == 0


def test_a_fresh_private_key_is_a_good_one_and_another_each_time() -> None:
    fresh = {new_private_key() for _ in range(50)}
    assert len(fresh) == 50
    assert all(check_private_key(text, "f") == text for text in fresh)


@given(st.text(max_size=50) | keys)
def test_the_pattern_takes_what_base64_takes(text: str) -> None:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
        good = len(raw) == 32 and base64.b64encode(raw).decode() == text
    except ValueError:
        good = False
    assert (KEY_PATTERN.fullmatch(text) is not None) is good


def test_fingerprints_tell_secrets_apart_and_no_more() -> None:
    assert fingerprint(None) == "(none)"
    assert fingerprint(private_key(1)) == fingerprint(private_key(1)) != fingerprint(private_key(2))
    assert fingerprint(private_key(1)).startswith("sha256:")
    assert len(fingerprint(private_key(1))) == len("sha256:") + 12
    assert fingerprint("\u00e4 no key \udc80") != "(none)"
