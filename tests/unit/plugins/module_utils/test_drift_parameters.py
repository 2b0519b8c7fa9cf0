"""What wg_drift takes, and what it refuses by its name."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import Expected, check_expected
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from tests.unit.plugins.module_utils.generated import by_key, key, peer


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, ""),
        ({"interface": "wg0"}, "peers"),
        ({"interface": "wg0/..", "peers": []}, "interface"),
        ({"interface": "wg0", "peers": [], "interfaces": []}, "interface"),
        ({"interface": "wg0", "peers": [{"public_key": "x"}]}, "peers[0].public_key"),
        ({"interface": "wg0", "peers": [], "listen_port": 0}, "listen_port"),
        ({"interfaces": {}}, "interfaces"),
        ({"interfaces": ["wg0"]}, "interfaces[0]"),
        ({"interfaces": [{"interface": "wg0"}]}, "interfaces[0].peers"),
        ({"interfaces": [{"peers": []}]}, "interfaces[0].interface"),
        ({"interfaces": [{"interface": "wg0", "peers": [], "port": 5}]}, "interfaces[0].port"),
        (
            {"interfaces": [{"interface": "wg0", "peers": [], "x" * 1_000_000: 5}]},
            "interfaces[0]." + "x" * 40,
        ),
        ({"interfaces": [{"interface": "wg0", "peers": []}] * 2}, "interfaces[1].interface"),
        ({"interfaces": [{"interface": "wg0", "peers": [5]}]}, "interfaces[0].peers[0]"),
        ({"interface": "wg0", "state": "present"}, "peers"),
        ({"interface": "wg0", "state": "gone"}, "state"),
        ({"interfaces": [{"interface": "wg0", "state": ["absent"]}]}, "interfaces[0].state"),
        ({"interfaces": [{"interface": "..", "state": "absent"}]}, "interfaces[0].interface"),
        ({"interfaces": [{"interface": "wg0", "state": "absent"}] * 2}, "interfaces[1].interface"),
        ({"interface": "wg0", "peers": [], "public_key": "x"}, "public_key"),
        ({"interface": "wg0", "peers": [], "addresses": "10.0.0.1/24"}, "addresses"),
        ({"interface": "wg0", "peers": [], "addresses": ["10.0.0.1/24", "x"]}, "addresses[1]"),
        ({"interface": "wg0", "peers": [], "mtu": 1}, "mtu"),
    ],
)
def test_parameters_are_checked_and_named(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_expected(params)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


def test_labels_are_kept_for_the_report() -> None:
    peers = [{"public_key": key(1), "name": "Phone", "peer_id": "a"}, {"public_key": key(2), "name": None}]
    assert check_expected({"interface": "wg0", "peers": peers}) == [
        Expected("wg0", by_key(peer(1), peer(2)), {key(1): {"name": "Phone", "peer_id": "a"}})
    ]


def test_fields_are_taken_in_normal_form() -> None:
    params = {
        "interface": "wg0",
        "peers": [],
        "public_key": key(7),
        "addresses": ["10.0.0.1/24", "FD00:0::1/64"],
        "mtu": "1380",
    }
    assert check_expected(params) == [
        Expected(
            "wg0",
            {},
            {},
            public_key=key(7),
            addresses=frozenset({"10.0.0.1/24", "fd00::1/64"}),
            mtu=1380,
        )
    ]
