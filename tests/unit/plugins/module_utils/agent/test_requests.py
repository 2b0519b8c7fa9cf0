"""A body is a JSON object of known fields, each there once, and nothing that JSON does not have."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.requests import fields_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput

KNOWN = ("config", "nonce")


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_known_fields_are_taken_as_they_are(kind: type[bytes] | type[bytearray]) -> None:
    fields = {"config": {"a": [1, 2.5, None, True, "ü"]}}
    assert fields_of(kind(json.dumps(fields).encode()), KNOWN) == fields
    assert fields_of(kind(b" {} \n"), KNOWN) == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"config=1", "is not JSON"),
        (b'{"config": 1} x', "is not JSON"),
        (b'{"config": "\xff"}', "is not JSON"),
        ('{"config": 1}'.encode("utf-16"), "is not JSON"),
        ('{"config": 1}'.encode("utf-32-le"), "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"null", "is not a JSON object"),
        (b"[{}]", "is not a JSON object"),
        (b'"config"', "is not a JSON object"),
        (b'{"config": 1, "config": 1}', "a field is there twice"),
        (b'{"config": {"a": 1, "a": 2}}', "a field is there twice"),
        (b'{"config": NaN}', "NaN is not a number of JSON's"),
        (b'{"config": [-Infinity]}', "-Infinity is not a number of JSON's"),
        (b'{"colour": 1, "config": 1, "a\\nb": 1}', r"unknown field 'a\nb'; known are config, nonce"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_in_words_of_its_own(body: bytes, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fields_of(body, KNOWN)
    assert str(caught.value) == f"body: {told}"
    assert caught.value.__cause__ is None


def test_what_looks_like_a_key_is_not_repeated() -> None:
    with pytest.raises(InvalidInput, match=r"unknown field '\(hidden\)'"):
        fields_of(json.dumps({"A" * 43 + "=": 1}).encode(), KNOWN)
