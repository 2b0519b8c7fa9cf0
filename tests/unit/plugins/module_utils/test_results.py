from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import plan, target
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import (
    bound,
    diffs,
    instance_result,
    scrub,
    secrets_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, InterfaceState
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    keys,
    peer,
    preshared_key,
    private_key,
    public_key_of,
    running,
)


def outcome(desired: Desired, before: InterfaceState) -> Outcome:
    wanted = target(desired, before, public_key_of, lambda: private_key(9), lambda: 45678, lambda: 1420)
    return Outcome(desired, before, wanted, plan(before, wanted))


THREE = by_key(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32"), peer(3, "10.0.0.3/32"))
CHANGED = by_key(peer(2, "10.0.0.2/32"), peer(3, "10.0.0.9/32"), peer(4, "10.0.0.4/32"))


def test_the_result_names_what_changed() -> None:
    assert instance_result(outcome(Desired("wg0", peers=CHANGED), running(THREE))) == {
        "name": "wg0",
        "state": "present",
        "changed": True,
        "public_key": public_key_of(private_key(1)),
        "listen_port": 51820,
        "peers_added": [key(4)],
        "peers_updated": [key(3)],
        "peers_removed": [key(1)],
        "steps": ["rewrite the config file", "add 1 peer and update 1 peer and remove 1 peer"],
    }


def test_nothing_changed() -> None:
    done = outcome(Desired("wg0", peers=THREE), running(THREE))
    result = instance_result(done)
    assert (result["changed"], result["steps"], result["peers_updated"]) == (False, [], [])
    assert diffs([done]) == []


def test_a_failure_says_what_is_still_there_and_claims_no_change() -> None:
    failed = outcome(Desired("wg0", listen_port=7, peers=CHANGED), running(THREE))
    failed.error = "it broke"
    result = instance_result(failed)
    assert result["error"] == "it broke"
    assert result["listen_port"] == 51820
    assert result["changed"] is False
    assert (
        result["steps"] == result["peers_added"] == result["peers_updated"] == result["peers_removed"] == []
    )
    assert diffs([failed]) == []


def test_an_absent_interface_has_neither_key_nor_port() -> None:
    result = instance_result(outcome(Desired("wg0", state="absent"), running(THREE)))
    assert (result["public_key"], result["listen_port"], result["peers_removed"]) == (
        None,
        None,
        sorted(THREE),
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5), st.integers(0, 30))
def test_lists_are_bound_and_counts_exact(sizes: list[tuple[int, int]], most: int) -> None:
    results: list[dict[str, Any]] = [{"a": list(range(a)), "b": list(range(b))} for a, b in sizes]
    bound(results, ("a", "b"), most)
    assert [(result["a_count"], result["b_count"]) for result in results] == sizes
    kept = sum(len(result["a"]) + len(result["b"]) for result in results)
    assert kept == min(most, sum(a + b for a, b in sizes))
    for result, (a, b) in zip(results, sizes, strict=True):
        assert result["a"] == list(range(a))[: len(result["a"])]
        assert result.get("truncated", False) is (len(result["a"]) + len(result["b"]) < a + b)


def test_secrets_of_states() -> None:
    there = running(by_key(peer(1, preshared_key=preshared_key(1)), peer(2)))
    assert secrets_of([there, InterfaceState()]) == {private_key(1), preshared_key(1)}


def test_an_interface_without_a_key_hides_no_secret_of_its_file() -> None:
    there = running(by_key(peer(1, preshared_key=preshared_key(1))))
    bare = Device(None, None, 0, 0, by_key(peer(2, preshared_key=preshared_key(2))))
    assert secrets_of([dataclasses.replace(there, device=bare)]) == {
        private_key(1),
        preshared_key(1),
        preshared_key(2),
    }


SECRETS = {private_key(1), preshared_key(1)}


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (private_key(1), "(secret)"),
        (f"a{private_key(1)}b", "a(secret)b"),
        (f"{private_key(1)}{preshared_key(1)}", "(secret)(secret)"),
        (f"AAAA{private_key(1)}", "AAAA(secret)"),
        (f"{key(1)} {private_key(1)}", f"{key(1)} (secret)"),
        (key(1), key(1)),
        (f"line\nPrivateKey = {private_key(1)}\n", "line\nPrivateKey = (secret)\n"),
        (
            {"x": [private_key(1), (preshared_key(1),)], private_key(1): 5},
            {"x": ["(secret)", ["(secret)"]], "(secret)": 5},
        ),
        (5, 5),
        (None, None),
        (True, True),
    ],
)
def test_scrub(value: object, clean: object) -> None:
    assert scrub(value, SECRETS) == clean


def test_scrub_without_secrets_is_the_value_itself() -> None:
    value = {"x": [key(1)]}
    assert scrub(value, set()) is value


@given(st.sets(keys, min_size=1, max_size=4), st.lists(st.text(max_size=5) | keys, max_size=6), st.data())
def test_no_secret_survives_scrubbing(secrets: set[str], texts: list[str], data: st.DataObject) -> None:
    parts = [*texts, *secrets]
    text = data.draw(st.sampled_from(["", " ", "/", "A", "\n"])).join(data.draw(st.permutations(parts)))
    cleaned = scrub({"deep": [{"text": text}]}, secrets)["deep"][0]["text"]
    assert not any(secret in cleaned for secret in secrets)
    for part in texts:
        assert part in secrets or part in cleaned or len(part) <= 5
