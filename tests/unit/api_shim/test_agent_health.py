"""What an agent says of its node is passed on as far as it is what it should be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim.agent_health import passed_on
from api_shim.routes.node_health import AgentHealth

INTERFACE = {"name": "wg1", "up": True, "listen_port": 51820, "peers": 2, "latest_handshake": 1700000000}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "up", "peers", "agent", "listen_port"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["time", "versions", "interfaces", "interface_count"]), anything))
def test_whatever_it_says_the_answer_is_as_documented(answer: dict[str, Any]) -> None:
    told = passed_on(answer)
    assert AgentHealth.model_validate(told, strict=True).model_dump() == told


def test_a_never_is_null() -> None:
    told = passed_on({"interfaces": [{**INTERFACE, "latest_handshake": 0, "listen_port": None}]})
    assert told["interfaces"] == [{**INTERFACE, "latest_handshake": None, "listen_port": None}]
    assert told["interface_count"] == 1


@pytest.mark.parametrize("name", ["", "x" * 16, "../x", "wg1\n", "<b>", "wg é", 7, None])
def test_what_has_no_name_is_left_out(name: object) -> None:
    assert passed_on({"interfaces": [{**INTERFACE, "name": name}, INTERFACE]})["interfaces"] == [INTERFACE]


def test_it_is_bounded() -> None:
    told = passed_on(
        {
            "versions": {"kernel": "6" * 1000, "agent": "1\n2", "python": "3.11.2", "x": "y"},
            "interfaces": [INTERFACE] * 5000,
            "interface_count": 5000,
            "more": "x" * 1000,
        }
    )
    assert (len(told["interfaces"]), told["interface_count"]) == (1000, 5000)
    assert {name for name, value in told["versions"].items() if value} == {"python"}
    assert set(told) == {"time", "versions", "interface_count", "interfaces"}
