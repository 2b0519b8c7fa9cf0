from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest
from hypothesis import assume, given, settings

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import steps as steps_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import fingerprint
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.plan import plan
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import (
    DIFF_PEERS,
    count,
    diff,
    summary,
    without_secrets,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import instance_result
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import InterfaceState, Route, Unit
from tests.unit.plugins.module_utils.generated import (
    POOL_SECRETS,
    by_key,
    interface_states,
    key,
    peer,
    preshared_key,
    private_key,
    running,
    wishes,
)
from tests.unit.plugins.module_utils.planned import NEW_KEY, wanted_of

many = settings(max_examples=6 * settings().max_examples)


def diff_of(desired: Desired, actual: InterfaceState) -> tuple[list[str], list[str]]:
    found = diff(desired, actual, wanted_of(desired, actual))
    return found["before"].splitlines(), found["after"].splitlines()


@pytest.mark.parametrize(
    ("number", "what", "words"),
    [
        (0, "peer", "0 peers"),
        (1, "peer", "1 peer"),
        (2, "address", "2 addresses"),
        (1, "address", "1 address"),
    ],
)
def test_count(number: int, what: str, words: str) -> None:
    assert count(number, what) == words


STEPS = [
    (steps_of.WriteFile("x", None), "create the config file"),
    (steps_of.WriteFile("x", "y"), "rewrite the config file"),
    (steps_of.RemoveFile("x"), "remove the config file"),
    (steps_of.RunHooks("post_up", ("a", "b")), "run 2 post_up commands"),
    (steps_of.StopUnit(), "stop the unit"),
    (steps_of.StartUnit(), "start the unit"),
    (steps_of.AdoptUnit(), "take the running interface into the unit"),
    (steps_of.EnableUnit(True), "enable the unit"),
    (steps_of.EnableUnit(False), "disable the unit"),
    (steps_of.CreateLink(), "create the interface"),
    (steps_of.DeleteLink(), "delete the interface"),
    (steps_of.SetDevice(private_key(1), 51820, 0), "set private key, listen port, fwmark"),
    (
        steps_of.SetPeers((peer(1), peer(2)), (key(3),), (key(1),), (key(2),)),
        "add 1 peer and update 1 peer and remove 1 peer",
    ),
    (steps_of.SetAddresses(("10.0.0.1/24",), ("a", "b")), "add 1 address and remove 2 addresses"),
    (steps_of.SetMtu(1380), "set the MTU to 1380"),
    (steps_of.LinkUp(), "bring the interface up"),
    (steps_of.SetRoutes((Route("::/0", "7"),)), "add 1 route"),
]


@pytest.mark.parametrize(("step", "words"), STEPS, ids=[words for _step, words in STEPS])
def test_each_step_has_its_words(step: steps_of.Step, words: str) -> None:
    assert summary([step]) == [words]


def test_a_step_of_another_kind_is_not_passed_over() -> None:
    with pytest.raises(AssertionError, match=r"^no words for str$"):
        summary(["a step of another kind"])  # type: ignore[list-item]


def test_every_kind_of_step_is_in_the_table_above() -> None:
    assert {type(step) for step, _words in STEPS} == set(get_args(steps_of.Step))


def test_a_change_of_one_peer_shows_that_peer_alone() -> None:
    there = running(by_key(*(peer(number, f"10.0.0.{number}/32") for number in range(9))))
    changed = {**there.device.peers, key(4): peer(4, "10.0.0.4/32", "10.0.9.0/24", persistent_keepalive=25)}  # type: ignore[union-attr]
    assert diff_of(Desired("wg0", peers=changed), there) == (
        ["file: /etc/wireguard/wg0.conf", f"peer: {key(4)} allowed_ips 10.0.0.4/32"],
        [
            "file: /etc/wireguard/wg0.conf",
            f"peer: {key(4)} allowed_ips 10.0.0.4/32, 10.0.9.0/24 keepalive 25",
        ],
    )


def test_an_endpoint_is_shown_where_it_is_asked_for() -> None:
    there = running(by_key(peer(1, endpoint="192.0.2.1:7"), peer(2)))
    roamed = {
        number: found._replace(endpoint="192.0.2.99:9")
        for number, found in there.device.peers.items()  # type: ignore[union-attr]
    }
    there = dataclasses.replace(there, device=dataclasses.replace(there.device, peers=roamed))  # type: ignore[type-var]
    desired = Desired("wg0", peers=by_key(peer(1, endpoint="192.0.2.2:8"), peer(2, "10.0.0.2/32")))
    before, after = diff_of(desired, there)
    assert set(before[1:]) == {
        f"peer: {key(1)} allowed_ips (none) endpoint 192.0.2.1:7",
        f"peer: {key(2)} allowed_ips (none)",
    }
    assert set(after[1:]) == {
        f"peer: {key(1)} allowed_ips (none) endpoint 192.0.2.2:8",
        f"peer: {key(2)} allowed_ips 10.0.0.2/32",
    }


def test_keys_are_shown_by_their_fingerprints() -> None:
    there = running(by_key(peer(1, preshared_key=preshared_key(1))))
    desired = Desired(
        "wg0", private_key=private_key(2), peers=by_key(peer(1, preshared_key=preshared_key(2)))
    )
    before, after = diff_of(desired, there)
    assert f"PrivateKey = {fingerprint(private_key(1))}" in before
    assert f"PrivateKey = {fingerprint(private_key(2))}" in after
    assert f"private_key: {fingerprint(private_key(2))}" in after
    assert f"peer: {key(1)} allowed_ips (none) preshared_key {fingerprint(preshared_key(1))}" in before
    assert f"peer: {key(1)} allowed_ips (none) preshared_key {fingerprint(preshared_key(2))}" in after


def test_what_the_run_chooses_is_named_and_not_shown() -> None:
    _before, after = diff_of(Desired("wg0"), InterfaceState())
    assert {"PrivateKey = (generated)", "private_key: (generated)", "ListenPort = (a free one)"} <= set(after)
    assert fingerprint(NEW_KEY) not in "\n".join(after)
    assert "45678" not in "\n".join(after)


def test_a_removal_shows_all_that_goes() -> None:
    there = dataclasses.replace(
        running(by_key(peer(1, "10.9.0.0/24")), table="auto", addresses=("10.0.0.1/24",)),
        unit=Unit(True, True),
    )
    before, after = diff_of(Desired("wg0", state="absent"), there)
    assert {
        "file: /etc/wireguard/wg0.conf", "listen_port: 51820", f"peer: {key(1)} allowed_ips 10.9.0.0/24",
        "address: 10.0.0.1/24", "up: true", "mtu: 1420", "enabled at boot: true", "unit active: true",
    } <= set(before)  # fmt: skip
    assert after == ["enabled at boot: false", "unit active: false"]


def test_a_file_that_differs_only_among_its_peers_is_in_the_diff() -> None:
    there = running(by_key(peer(1, "10.0.0.1/32")))
    there = dataclasses.replace(there, file=(there.file or "") + "\n# a word by hand\n")
    assert diff_of(Desired("wg0"), there) == (
        ["file: /etc/wireguard/wg0.conf"],
        ["file: /etc/wireguard/wg0.conf (its peers written anew)"],
    )


def test_a_large_change_is_counted_instead_of_spelt_out() -> None:
    peers = by_key(
        *(peer(number, f"10.{number // 250}.0.{number % 250}/32") for number in range(DIFF_PEERS + 50))
    )
    _before, after = diff_of(Desired("wg0", peers=peers), InterfaceState())
    assert sum(line.startswith("peer: ") for line in after) == DIFF_PEERS
    assert "(50 more peers change)" in after


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"PrivateKey = {private_key(1)}", f"PrivateKey = {fingerprint(private_key(1))}"),
        (f"  privatekey={private_key(1)} ", f"  privatekey={fingerprint(private_key(1))}"),
        (f"PresharedKey = {preshared_key(1)}", f"PresharedKey = {fingerprint(preshared_key(1))}"),
        (f"PrivateKey = {private_key(1)[:-1]}", "PrivateKey = (hidden)"),
        (f"PrivateKey = {private_key(1)} # old one", "PrivateKey = (hidden)"),
        (f"PrivatKey = {private_key(1)}", "PrivatKey = (hidden)"),
        (private_key(1), "(hidden)"),
        (f"# was {private_key(1)}", "# was (hidden)"),
        (f"PostUp = echo {private_key(1)} | wg pubkey", "PostUp = echo (hidden) | wg pubkey"),
        ("Address = 10.0.0.1/24", "Address = 10.0.0.1/24"),
        ("x \udcff", "x \ufffd"),
    ],
)
def test_lines_of_a_file_are_cleaned_of_secrets(line: str, shown: str) -> None:
    assert without_secrets(line) == shown


def test_a_line_is_not_shown_at_any_length() -> None:
    assert len(without_secrets("PostUp = " + "ab " * 1_000_000)) == 300


@many
@given(interface_states(), wishes())
def test_no_secret_is_in_anything_that_is_shown(actual: InterfaceState, desired: Desired) -> None:
    try:
        wanted = wanted_of(desired, actual)
    except (Refused, InvalidInput) as error:
        wanted, text = None, str(error)
    if wanted is not None:
        steps = plan(actual, wanted)
        outcome = Outcome(desired, actual, wanted, steps)
        text = json.dumps([diff(desired, actual, wanted), summary(steps), instance_result(outcome)])
    for secret in [*POOL_SECRETS, NEW_KEY]:
        # Nor so much of it that the rest could be guessed.
        assert secret[:32] not in text


@many
@given(interface_states(), wishes())
def test_a_diff_is_empty_just_when_nothing_is_done(actual: InterfaceState, desired: Desired) -> None:
    try:
        wanted = wanted_of(desired, actual)
    except (Refused, InvalidInput):
        assume(False)
        raise
    found = diff(desired, actual, wanted)
    assert (found["before"] != found["after"]) is bool(plan(actual, wanted))
