"""What a list of nodes may say, and what is refused and named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_fields import FIELDS
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
    apply_nodes,
    check_connection,
)
from tests.unit.plugins.plugin_utils.registry.described_nodes import EVERYTHING, LEAST, all_of


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Without nodes, for what has nothing to do with the database: nothing is kept in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
        yield open_registry(f"sqlite:///{tmp_path_factory.mktemp('registry')}/registry.db")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nodes", "nodes: is not a list"),
        ({"name": "n1"}, "nodes: is not a list"),
        (["n1"], "nodes[0]: is not a mapping of a node's fields"),
        ([LEAST, {"enabled": True}], "nodes[1].name: is needed"),
        ([{"name": "{{ lookup('pipe', 'id') }}"}], "nodes[0].name: "),
        ([{"name": "localhost"}], "nodes[0].name: "),
        ([LEAST, {**LEAST, "name": "DE1.example.com"}], "nodes[1].name: DE1.example.com is there twice"),
        ([{"name": "n1"}], "node n1: ip_pool_cidr: is needed for a new node"),
        (
            [{"name": "n1", "wieght": 1}],
            "node n1: 'wieght': is no field of a node; these are: ansible_host, ",
        ),
        ([{"name": "n1", "id": "x"}], "node n1: 'id': is no field of a node"),
        ([{"name": "n1", 1: "x"}], "node n1: '1': is no field of a node"),
        ([{"name": "n1", "state": "gone"}], "node n1: state: 'gone' is neither present nor absent"),
        ([{"name": "n1", "state": None}], "node n1: state: "),
        ([{"name": "n1", "lost": True}], "node n1: lost: goes with state: absent"),
        (
            [{"name": "n1", "lost": "yes", "state": "absent"}],
            "node n1: lost: 'yes' is neither true nor false",
        ),
    ],
)
def test_a_useless_list_is_refused(sqlite: Registry, wanted: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught, sqlite.write() as session:
        apply_nodes(session, wanted)
    assert str(caught.value).startswith(message)
    assert all_of(sqlite) == {}


TEMPLATE = "{{ lookup('pipe', 'id') }}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, TEMPLATE) for field in FIELDS),
        *((field, ["x"]) for field in FIELDS),
        *((field, {}) for field in FIELDS),
        *((field, "x" * 5000) for field in FIELDS),
        ("ansible_host", "-oProxyCommand=id"),
        ("ansible_host", "a b"),
        ("ansible_host", "a/b"),
        ("ansible_host", "192.0.2"),
        ("ansible_host", "192.0.2.300"),
        ("ansible_host", "fe80::1%eth0"),
        ("ansible_host", "host:22"),
        ("ansible_host", 22),
        ("ansible_host", True),
        ("ansible_port", 0),
        ("ansible_port", 65536),
        ("ansible_user", "-oProxyCommand=id"),
        ("ansible_user", "root;id"),
        ("ansible_user", "a b"),
        ("ansible_python_interpreter", "python3"),
        ("ansible_python_interpreter", "/usr/bin/python3;id"),
        ("ansible_python_interpreter", "/usr/bin/env python3"),
        ("ansible_python_interpreter", "/usr/bin/"),
        ("agent_url", "ftp://host/"),
        ("agent_url", "https://ops:hunter@host/"),
        ("agent_url", "https://"),
        ("agent_url", "https:///x"),
        ("agent_url", "https://host:0/"),
        ("agent_url", "https://host:x/"),
        ("agent_url", "https://host/?a=b"),
        ("agent_url", "https://host/#a"),
        ("agent_url", "https://fd00::1/"),
        ("agent_url", "https://host/a b"),
        ("agent_url", "https://host/agent"),
        ("agent_url", "https://host//"),
        ("endpoint", "host:0"),
        ("endpoint", "host:65536"),
        ("endpoint", "host:"),
        ("endpoint", ":51820"),
        ("endpoint", "host:51820:51820"),
        ("endpoint", "[fd00::1"),
        ("endpoint", "[192.0.2.1]:51820"),
        ("endpoint", "[::g]:51820"),
        ("endpoint", "https://host"),
        ("endpoint", "host\n"),
        ("wg_interface", "a/b"),
        ("wg_interface", "wg0123456789012345"),
        ("ip_pool_cidr", "fd00::/48"),
        ("ip6_pool_cidr", "10.0.0.0/8"),
        ("enabled", "no"),
        ("enabled", 0),
        ("weight", -1),
        ("max_peers", -1),
        ("country", "Ger\nmany"),
        ("country", "<b>"),
        ("country", "$(id)"),
        ("country", "../x"),
        ("country", " DE"),
        ("country", "D" * 65),
        ("dns_name", "a b"),
        ("override_mtu", 100),
    ],
)
def test_what_a_field_cannot_hold_is_refused(sqlite: Registry, field: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"^node n1: {field}: ") as caught, sqlite.write() as session:
        apply_nodes(session, [{"name": "n1", "ip_pool_cidr": "10.8.0.0/16", field: value}])
    assert len(str(caught.value)) < 250
    assert all_of(sqlite) == {}


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("ansible_host", "fd00::1", "fd00::1"),
        ("ansible_host", "node1", "node1"),
        ("ansible_host", "", None),
        ("ansible_user", "ops@corp.example.com", "ops@corp.example.com"),
        ("agent_url", "http://[fd00::1]:8443", "http://[fd00::1]:8443"),
        ("agent_url", "http://192.0.2.1/", "http://192.0.2.1/"),
        ("endpoint", "192.0.2.1", "192.0.2.1"),
        ("endpoint", "fd00::1", "fd00::1"),
        ("endpoint", "[fd00::1]", "fd00::1"),
        ("endpoint", "[fd00::1]:51820", "[fd00::1]:51820"),
        ("endpoint", "192.0.2.1:51820", "192.0.2.1:51820"),
        ("ip6_pool_cidr", "FD00:8:0::/48", "fd00:8::/48"),
        ("country", "Côte d'Ivoire", "Côte d'Ivoire"),
        ("country", "Bosnia and Herzegovina (BA)", "Bosnia and Herzegovina (BA)"),
        ("weight", 0, 0),
        ("max_peers", 0, 0),
    ],
)
def test_what_a_field_can_hold(sqlite: Registry, field: str, value: object, kept: object) -> None:
    with sqlite.write(keep=False) as session:
        (change,) = apply_nodes(session, [{"name": "n1", "ip_pool_cidr": "10.8.0.0/16", field: value}])
    assert change.after is not None
    assert change.after[field] == kept


def test_a_node_has_one_spelling(sqlite: Registry) -> None:
    with sqlite.write(keep=False) as session:
        apply_nodes(session, [LEAST])
        with pytest.raises(
            Conflict, match=r"node DE1.example.com is in the registry already, as de1.example.com"
        ):
            apply_nodes(session, [{**LEAST, "name": "DE1.example.com"}])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "-oProxyCommand=id"),
        ("name", "all"),
        ("ansible_host", "-oProxyCommand=id"),
        ("ansible_port", 70000),
        ("ansible_user", "-oProxyCommand=id"),
        ("ansible_python_interpreter", "/bin/sh -c id #"),
    ],
)
def test_what_came_into_the_registry_otherwise_is_checked_too(field: str, value: object) -> None:
    check_connection(Node(**EVERYTHING))
    with pytest.raises(Invalid):
        check_connection(Node(**{**EVERYTHING, field: value}))
