"""The settings, and their page."""

from __future__ import annotations

import re

from pydantic import SecretStr

from api_shim.settings import Settings
from tests.checkout import ROOT

PAGE = ROOT / "docs" / "api_settings.md"


def test_the_page_has_each_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `VPNFLEET_(\w+)` \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        plain = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "the checkout" if name == "project" else "none" if plain in (None, "") else f"`{plain}`"
        expected.append((name.upper(), shown, field.description))
    assert rows == expected
