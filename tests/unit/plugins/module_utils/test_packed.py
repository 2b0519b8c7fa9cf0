from __future__ import annotations

import base64
import datetime
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import packed
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import LISTS, pack, parameters, unpack
from tests.unit.plugins.module_utils.generated import private_key

data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(LISTS), data))
def test_what_is_packed_comes_out_again(values: dict[str, Any]) -> None:
    text = pack(values)
    assert text.isascii()
    assert text.isprintable()
    assert unpack(text) == values


def test_it_grows_slower_than_the_list() -> None:
    peers = [
        {"public_key": private_key(number), "allowed_ips": [f"10.0.{number}.1/32"]} for number in range(200)
    ]
    assert len(pack({"peers": peers})) < len(json.dumps({"peers": peers}))


def test_a_date_out_of_yaml_is_packed_as_text() -> None:
    values = {"peers": [{"name": datetime.date(2026, 11, 22)}]}
    assert unpack(pack(values)) == {"peers": [{"name": "2026-11-22"}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "\u00e4",
        "AAAA",
        pack({"peers": []})[:-4],
        base64.b64encode(zlib.compress(b"[]")).decode(),
        base64.b64encode(zlib.compress(b"{")).decode(),
        base64.b64encode(zlib.compress(b"\xff")).decode(),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^_packed: is not what the action plugin sends$"):
        unpack(text)


def test_what_would_be_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = pack({"peers": ["x" * 1000]})
    monkeypatch.setattr(packed, "LONGEST", 1000)
    with pytest.raises(InvalidInput, match=r"^_packed: is not what the action plugin sends$"):
        unpack(text)


def test_parameters_are_put_back_in_their_places() -> None:
    given_ones = {
        "name": "wg0",
        "instances": None,
        "_packed": pack({"instances": [{"name": "wg1"}]}),
        "src": None,
    }
    assert parameters(given_ones) == {"name": "wg0", "instances": [{"name": "wg1"}]}
    assert parameters({"name": "wg0", "peers": [1], "_packed": None}) == {"name": "wg0", "peers": [1]}


def test_src_is_for_the_controller() -> None:
    with pytest.raises(InvalidInput, match="read on the controller") as caught:
        parameters({"src": "/etc/shadow"})
    assert caught.value.field == "src"
