"""The document's patterns say what the registry's checks say: neither refuses what the other one takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    check_instance_name,
    check_node_name,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_fields import FIELDS
from api_shim.routes import patterns
from api_shim.routes.nodes import NodeFields

RULES: dict[str, tuple[str, Callable[[Any, str], Any], int]] = {
    "email": (patterns.EMAIL, check_instance_name, 254),
    "name": (patterns.NODE_NAME, check_node_name, 253),
}
for _name, _pattern in (
    ("ansible_host", patterns.HOST),
    ("ansible_user", patterns.USER),
    ("ansible_python_interpreter", patterns.PROGRAM),
    ("agent_url", patterns.URL),
    ("endpoint", patterns.ENDPOINT),
    ("wg_interface", patterns.INTERFACE),
    ("country", patterns.COUNTRY),
    ("dns_name", patterns.HOST),
    ("override_dns", patterns.NAME_SERVERS),
):
    _schema = NodeFields.model_json_schema()["properties"][_name]
    assert _schema["pattern"] == _pattern
    RULES[_name] = (_pattern, FIELDS[_name], _schema["anyOf"][0]["maxLength"])

# A slow machine is no bug.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
LABELS = st.sampled_from(
    ["a", "A-b", "1", "255", "10", "0", "all", "LO", "x" * 63, "y" * 64, "-a", "a-", "", "com", "1a", "é"]
)
NAMES = st.lists(LABELS, max_size=5).map(".".join)
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(
    [
        "::",
        "::1",
        "1::",
        "::ffff:1.2.3.4",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:1.2.3.4",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4::5:6:7:8",
        "1::2::3",
        "fe80::1%eth0",
        "10.0.0.256",
        "010.0.0.1",
        "1:2:3:4:5:6:7:1.2.3.4",
    ]
)
PORTS = st.integers(0, 70000).map(str) | st.sampled_from(["080", "00000", "000080", "00001", "", "x"])
PLACES = st.builds(
    "{}{}".format, NAMES | ADDRESSES | ADDRESSES.map("[{}]".format), st.just("") | PORTS.map(":{}".format)
)
PATHS = st.sampled_from(["", "/", "/a/~b", "?q", "/%20"])
TEXTS = st.one_of(
    PLACES,
    st.lists(PLACES, max_size=3).map(",".join),
    st.lists(PLACES, max_size=3).map(" , ".join),
    st.builds("{}{}{}".format, st.sampled_from(["http://", "https://", "ftp://", "HTTP://"]), PLACES, PATHS),
    st.builds("{}@{}".format, NAMES | st.text("ab._%+-", max_size=70), NAMES),
    st.text(st.sampled_from("aZ09_-+=.@/,:% '()éßЖ中ª٣\u200b\u202e×÷\n\t"), max_size=20),
    st.text(max_size=20),
    st.sampled_from(["all", "ALL", "localhost", "127.0.0.1", "127.0.0.2", "nodes", "lo", "wg0", "日本", "-x"]),
    st.sampled_from(["a." * 126 + "a", "a." * 127 + "a", "a." * 126 + "a:80", "a" * 64 + "@b.c", "a" * 65 + "@b.c"]),
    st.sampled_from(["x" * 15, "x" * 16, "a" * 60 + "@" + "b." * 96 + "c", "a" * 60 + "@" + "b." * 97 + "c"]),
)  # fmt: skip


def takes(check: Callable[[Any, str], Any], text: str) -> bool:
    try:
        check(text, "it")
    except Invalid:
        return False
    return True


@pytest.mark.parametrize("field", RULES)
def test_what_is_taken_is_matched(field: str) -> None:
    pattern, check, longest = RULES[field]

    @settings(**UNHURRIED)
    @given(TEXTS)
    def agree(text: str) -> None:
        assume(len(text) <= longest)
        assert bool(re.fullmatch(pattern, text)) == takes(check, text)

    agree()


@pytest.mark.parametrize("field", RULES)
def test_what_is_matched_is_taken(field: str) -> None:
    pattern, check, longest = RULES[field]

    @settings(**UNHURRIED)
    @given(st.from_regex(pattern, fullmatch=True))
    def agree(text: str) -> None:
        assume(len(text) <= longest)
        assert takes(check, text)

    agree()
