"""The answer of wg_instance as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import instances
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from tests.unit.plugins.module_utils.generated import key


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Desired]:
    """What converge was asked for; it finds all interfaces that shall go to be somebody else's."""
    seen: list[Desired] = []

    def converge(wanted: Sequence[Desired], _check_mode: bool) -> list[Outcome]:
        seen.extend(wanted)
        return [
            Outcome(one, warning=None if one.state == "present" else f"{one.name} is left alone")
            for one in wanted
        ]

    monkeypatch.setattr(instances, "converge", converge)
    return seen


def test_warnings_stand_at_the_top_and_are_no_failure(asked: list[Desired]) -> None:
    batch = [
        {"name": "wg0", "state": "absent", "public_key": key(1)},
        {"name": "wg1", "public_key": key(2)},
        {"name": "wg2", "state": "disconnected"},
    ]
    answer = instances.run({"instances": batch}, False, True)
    assert answer["warnings"] == ["wg0 is left alone", "wg2 is left alone"]
    assert (answer["changed"], answer["diff"], "failed" in answer) == (False, [], False)
    assert [one.public_key for one in asked] == [key(1), key(2), None]


def test_a_single_instance_has_the_same(asked: list[Desired]) -> None:
    answer = instances.run({"name": "wg0", "state": "absent", "public_key": key(1)}, False, False)
    assert answer["warnings"] == ["wg0 is left alone"]
    assert asked == [Desired("wg0", state="absent", public_key=key(1))]
    assert "warnings" not in instances.run({"name": "wg0"}, False, False)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"name": "wg0", "public_key": "no key"}, "public_key: is not a WireGuard key"),
        ({"public_key": key(1), "instances": []}, "public_key: goes with a single instance"),
    ],
)
def test_a_wrong_public_key_is_named(asked: list[Desired], params: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        instances.run(params, False, False)
    assert str(caught.value).startswith(problem)
    assert asked == []


def test_a_wrong_public_key_holds_nobody_else_up(asked: list[Desired]) -> None:
    batch = [{"name": "wg0", "public_key": "no key"}, {"name": "wg1", "public_key": key(2)}]
    answer = instances.run({"instances": batch}, False, False)
    assert answer["failed"]
    assert "wg0: instances[0].public_key: is not a WireGuard key" in answer["msg"]
    assert [one.name for one in asked] == ["wg1"]


def test_a_single_one_that_fails_is_told_of_at_the_top(
    asked: list[Desired], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked == []
    monkeypatch.setattr(instances, "converge", lambda wanted, _check: [Outcome(wanted[0], error="it broke")])
    answer = instances.run({"name": "wg0"}, False, False)
    assert (answer["failed"], answer["msg"], answer["error"]) == (True, "wg0: it broke", "it broke")
    assert answer["instances"][0]["name"] == answer["name"] == "wg0"


def test_many_that_fail_are_counted_and_the_first_named(asked: list[Desired]) -> None:
    batch: list[Any] = [{"name": f"wg{number}", "mtu": "no number"} for number in range(11)]
    answer = instances.run({"instances": [{"name": "wg99"}, 5, *batch]}, False, False)
    assert [one.name for one in asked] == ["wg99"]
    assert answer["msg"].startswith(
        "12 of 13 instances failed. instances[1]: instances[1]: is not a mapping; wg0: "
    )
    assert answer["msg"].endswith("; and 2 more")
    assert ("wg8: " in answer["msg"], "wg9: " in answer["msg"]) == (True, False)
    assert [one["name"] for one in answer["instances"]] == [
        "wg99",
        "instances[1]",
        *(f"wg{number}" for number in range(11)),
    ]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "one of name, instances and src is needed"),
        ({"instances": {"name": "wg0"}}, "instances: is not a list"),
        ({"instances": "wg0"}, "instances: is not a list"),
    ],
)
def test_it_is_said_what_to_ask_for(asked: list[Desired], params: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        instances.run(params, False, False)
    assert str(caught.value) == problem
    assert asked == []
