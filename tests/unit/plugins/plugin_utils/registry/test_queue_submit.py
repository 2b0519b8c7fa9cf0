"""What is recorded to be carried out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Invalid,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Operation,
)
from tests.unit.plugins.plugin_utils.registry import queued
from tests.unit.plugins.plugin_utils.registry.consistency import (
    assert_all_is_well,
)
from tests.unit.plugins.plugin_utils.registry.queued import audited, claim, row, submit, taken
from tests.unit.plugins.plugin_utils.registry.rows import any_key
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

served = queued.served


@pytest.mark.parametrize(
    ("kind", "asked", "error"),
    [
        ("disconnect", {"instance": "{{ lookup('pipe', 'id') }}"}, Invalid),
        ("disconnect", {"instance": 7}, Invalid),
        ("disconnect", {}, Invalid),
        ("disconnect", {"instance": "nobody@example.com"}, NotFound),
        ("disconnect", {"instances": [ALICE, BOB]}, Invalid),
        ("transfer", {"instance": ALICE}, Invalid),
        ("transfer", {"instance": "nobody@example.com", "node": DE}, NotFound),
        ("transfer", {"instance": ALICE, "node": "es1.example.com"}, NotFound),
        ("provision", {"instance": "new@example.com", "node": "es1.example.com"}, NotFound),
        ("provision", {"instance": "new@example.com", "peers": [{"private_key": "x"}]}, Invalid),
        ("reconcile", {"node": "es1.example.com"}, NotFound),
        ("reconcile", {"node": NL, "remove_unknown": "perhaps"}, Invalid),
        ("drift", {"node": "../nodes"}, Invalid),
        ("drift", {"nodes": [NL, DE]}, Invalid),
    ],
)
def test_what_cannot_be_is_not_recorded(
    served: Controller, kind: str, asked: dict[str, Any], error: type[Exception]
) -> None:
    before = len(served.rows(Operation))
    with pytest.raises(error):
        submit(served, kind, **asked)
    assert len(served.rows(Operation)) == before


def test_what_is_submitted_waits_and_does_nothing_yet(served: Controller) -> None:
    number = submit(served, "transfer", instance=ALICE, node=DE)
    found = row(served, number)
    assert (found.state, found.attempts, found.owner, found.not_before) == ("pending", 0, None, None)
    assert (found.instance_name, found.node_id, found.requested_by) == (ALICE, None, "api:billing")
    assert served.instance(ALICE).node.name == NL
    assert served.fleet.calls == []
    assert audited(served, number) == []


def test_a_customer_who_is_on_the_way_can_be_disconnected(controller: Controller) -> None:
    first = submit(controller, "provision", instance=ALICE, node=NL, peers=[{"name": "phone"}])
    second = submit(controller, "disconnect", instance=ALICE)
    assert taken(claim(controller)) == [("provision", NL, (first,))]
    controller.play("provision", operations=[first])
    assert controller.up(ALICE) == [NL]
    assert taken(claim(controller)) == [("disconnect", NL, (second,))]
    assert controller.one("disconnect", operations=[second])["code"] == 200
    assert controller.up(ALICE) == []
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_customer_whose_way_has_failed_cannot(controller: Controller) -> None:
    first = submit(controller, "provision", instance=ALICE, node=NL)
    with controller.registry.write() as session:
        queue.cancel(session, session.get_one(Operation, first), "api:ops")
    with pytest.raises(NotFound):
        submit(controller, "disconnect", instance=ALICE)


def test_preshared_keys_wait_encrypted_and_are_forgotten(controller: Controller) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    number = submit(
        controller,
        "provision",
        instance=ALICE,
        node=NL,
        peers=[{"public_key": any_key(), "preshared_key": key}],
    )
    assert key not in str(row(controller, number).request)
    controller.play("provision", operations=[number])
    assert [
        peer["preshared_key"] for _, _, one in controller.fleet.everything() for peer in one["peers"]
    ] == [key]
    assert "peers_sealed" not in row(controller, number).request
