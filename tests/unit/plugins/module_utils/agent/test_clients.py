"""Who counts as one client."""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.clients import client_of


def test_one_client_is_one_address_or_one_network_of_ipv6() -> None:
    assert client_of(("192.0.2.1", 5)) == client_of(("::ffff:192.0.2.1", 5, 0, 0)) == "192.0.2.1"
    assert client_of(("2001:db8::1", 5, 0, 0)) == client_of(("2001:db8::ffff:0:0:1", 7, 0, 0))
    assert client_of(("2001:db8::1", 5, 0, 0)) != client_of(("2001:db8:0:1::1", 5, 0, 0))
    assert client_of(("fe80::1%eth0", 5, 0, 2)) == "fe80::/64"
    assert client_of(None) == ""
