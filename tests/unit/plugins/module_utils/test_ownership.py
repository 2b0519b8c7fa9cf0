"""Whose an interface is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.ownership import is_foreign, key_there
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device, InterfaceState, Link
from tests.unit.plugins.module_utils.generated import by_key, peer, private_key, public_key_of, running

OWN, OTHER = public_key_of(private_key(1)), public_key_of(private_key(2))

RUNNING = running(by_key(peer(1)))  # has the key OWN, and so has its file
DOWN = replace(RUNNING, device=None, link=None)
HALF_MADE = InterfaceState(device=Device(None, None, 0, 0, {}), link=Link(False, 1420, frozenset()))
HALF_MADE_WITH_FILE = replace(HALF_MADE, file=RUNNING.file, config=RUNNING.config)
FILE_OF_ANOTHER = replace(
    RUNNING,
    config=replace(RUNNING.config, private_key=private_key(2)),  # type: ignore[type-var]
)
FILE_WITHOUT_KEY = replace(DOWN, config=replace(RUNNING.config, private_key=None))  # type: ignore[type-var]
BROKEN = InterfaceState(file="[Interface", broken="no such line")

CASES = [
    ("nothing", InterfaceState(), None),
    ("running", RUNNING, OWN),
    ("running without a file", replace(RUNNING, file=None, config=None), OWN),
    ("running beside the file of another", FILE_OF_ANOTHER, OWN),
    ("a file alone", DOWN, OWN),
    ("a file without a key", FILE_WITHOUT_KEY, None),
    ("a broken file", BROKEN, None),
    ("half-made", HALF_MADE, None),
    ("half-made, with its file", HALF_MADE_WITH_FILE, OWN),
]


@pytest.mark.parametrize(("state", "has"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_has_another_key_is_foreign(state: InterfaceState, has: str | None) -> None:
    assert key_there(state, public_key_of) == has
    assert not is_foreign(Desired("wg0"), state, public_key_of)
    assert not is_foreign(Desired("wg0", public_key=OWN), state, public_key_of)
    assert is_foreign(Desired("wg0", public_key=OTHER), state, public_key_of) is (has is not None)


@pytest.mark.parametrize("key", [None, OWN, OTHER])
@pytest.mark.parametrize("state", [InterfaceState(), RUNNING, HALF_MADE, BROKEN])
def test_no_process_is_run_but_for_a_file_alone(state: InterfaceState, key: str | None) -> None:
    def no_process(_private: str) -> str:
        raise AssertionError("wg pubkey was run")

    is_foreign(Desired("wg0", public_key=key), state, no_process)
    is_foreign(Desired("wg0"), DOWN, no_process)


def test_a_file_that_cannot_be_told_of_is_not_foreign() -> None:
    """On a node that has no wg yet, as check mode may find it."""
    assert not is_foreign(Desired("wg0", public_key=OTHER), DOWN, lambda _private: "")
