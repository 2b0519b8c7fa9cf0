"""Who is told in the audit."""

from __future__ import annotations

import getpass
import os

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.actor import actor

LOGGED_IN = {"LOGNAME": "login", "USER": "login"}


@pytest.fixture(autouse=True)
def _nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VPNFLEET_ACTOR", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in LOGGED_IN.items():
        monkeypatch.setenv(name, value)


def test_whoever_is_named_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert actor({}) == "login"
    monkeypatch.setenv("SUDO_USER", "admin")
    assert actor({"awx_user_name": "", "tower_user_name": 5}) == "admin"
    assert actor({"tower_user_name": "tower"}) == "tower"
    assert actor({"awx_user_name": "awx", "tower_user_name": "tower"}) == "awx"
    monkeypatch.setenv("VPNFLEET_ACTOR", "a" * 300)
    assert actor({"awx_user_name": "awx"}) == "a" * 255


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError(f"getpwuid(): uid not found: {os.getuid()}")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert actor({}) == f"uid {os.getuid()}"
