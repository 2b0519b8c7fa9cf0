"""Encryption at rest: columns, keys, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
DIALECTS = (sqlite.dialect(), postgresql.dialect())  # type: ignore[no-untyped-call]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_goes_in_comes_out_and_cannot_be_read_on_the_way(plain: str) -> None:
    secrets.use([OLD])
    column = secrets.Encrypted()
    for dialect in DIALECTS:
        stored = column.process_bind_param(plain, dialect)
        assert stored is not None
        assert stored.isascii()
        assert len(plain) < 4 or plain not in stored
        assert column.process_result_value(stored, dialect) == plain


def test_nothing_is_nothing() -> None:
    secrets.use([OLD])
    for dialect in DIALECTS:
        assert secrets.Encrypted().process_bind_param(None, dialect) is None
        assert secrets.Encrypted().process_result_value(None, dialect) is None


def test_the_same_text_looks_different_each_time() -> None:
    secrets.use([OLD])
    column = secrets.Encrypted()
    assert len({column.process_bind_param("same", DIALECTS[0]) for _ in range(10)}) == 10


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    secrets.use([OLD])
    stored = secrets.cipher().encrypt(b"x").decode()
    secrets.use([NEW, OLD])
    assert secrets.Encrypted().process_result_value(stored, DIALECTS[0]) == "x"
    fresh = secrets.cipher().encrypt(b"y")
    assert Fernet(NEW).decrypt(fresh) == b"y"


@pytest.mark.parametrize("stored", ["", "x", "gAAAAA"])
def test_what_no_key_fits_is_told_without_the_keys(stored: str) -> None:
    secrets.use([OLD])
    other = Fernet(NEW).encrypt(b"hunter2").decode()
    for token in (stored, other, other[:-1] + "A"):
        with pytest.raises(NotUsable, match="were encrypted with another key") as caught:
            secrets.Encrypted().process_result_value(token, DIALECTS[0])
        assert OLD not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("keys", [["x"], [""], [OLD, "x"], [OLD[:-1]], ["\u00e9" * 44]])
def test_what_is_no_key_is_refused_and_leaves_the_keys_as_they_were(keys: list[str]) -> None:
    secrets.use([OLD])
    with pytest.raises(NotUsable, match="holds something else than Fernet keys") as caught:
        secrets.use(keys)
    assert OLD not in str(caught.value)
    assert Fernet(OLD).decrypt(secrets.cipher().encrypt(b"x")) == b"x"
    with pytest.raises(NotUsable, match="holds no key"):
        secrets.use([])


def test_keys_stand_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secrets.VARIABLE, f" {NEW} ,{OLD},\n")
    assert secrets.keys_from_environment() == [NEW, OLD]
    for empty in ("", " , ,"):
        monkeypatch.setenv(secrets.VARIABLE, empty)
        assert secrets.keys_from_environment() == []


def test_a_key_file_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.key"
    keys = secrets.keys_from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secrets.keys_from_file(path) == keys
    assert [each.name for each in tmp_path.iterdir()] == ["registry.key"]
    secrets.use(keys)


def test_before_a_registry_is_opened_nothing_is_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_cipher", None)
    with pytest.raises(NotUsable, match="has not been opened"):
        secrets.cipher()


def test_of_two_that_make_the_key_file_the_second_takes_the_firsts(tmp_path: Path) -> None:
    path = tmp_path / "registry.key"
    secrets._make_key_file(path)
    made = path.read_bytes()
    secrets._make_key_file(path)
    assert path.read_bytes() == made
    assert secrets.keys_from_file(path) == [made.decode().strip()]
    assert list(tmp_path.iterdir()) == [path]
