"""What operations are asked for, by people and by programs, some of whom mean harm."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString
from ansible.template import trust_as_template
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
    read_requests,
    sealed,
    unsealed_peers,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.rotation import renewed_within
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.secrets import use
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB

NODE = "nl1.example.com"
OF_INSTANCES = ("provision", "disconnect", "transfer", "remove")
OF_NODES = ("drift", "reconcile")

# What an attacker, or a slip of the hand, puts where a name belongs.
NO_NAMES = [
    "",
    " ",
    "*",
    "all",
    "alice",
    "alice@",
    "@example.com",
    "alice@localhost",
    "{{ lookup('pipe', 'touch /tmp/x') }}@example.com",
    "{{7*7}}",
    "{% raw %}",
    "alice@{{ inventory_hostname }}.example.com",
    "$(id)@example.com",
    "`id`@example.com",
    "alice@example.com; reboot",
    "alice@example.com && reboot",
    "alice@example.com\nbob@example.com",
    "alice@example.com\x00",
    "' OR 1=1 --@example.com",
    "alice@example.com'; DROP TABLE instance; --",
    "%@example.com",
    "../../etc/passwd",
    "../alice@example.com",
    "/etc/wireguard/wg1.conf",
    "-e@example.com",
    "alice@example.com, bob@example.com",
    "alice@example.com:&all",
    "!alice@example.com",
    "~alice@example.com",
    "a" * 65 + "@example.com",
    "alice@" + "a." * 130 + "com",
    "аlice@example.com",  # the first letter is Cyrillic
    "alice@example.com\u202e",
    "\ud800@example.com",
]
NO_NODES = [
    "", " ", "*", "all", "ALL", "localhost", "127.0.0.1", "ungrouped", "nodes", "a,b", "a:b", "!a", "~a.*", "a[0]",
    "@/etc/passwd", "../a", "a b", "-a", "a.", "{{ groups.all[0] }}", "$(id)", "`id`", "a;id", "a'b", "a\nb", "a\x00",
    "a" * 64, "a." * 130 + "b", "nоde", "\ud800",
]  # fmt: skip
NO_TEXTS: list[Any] = [
    True,
    False,
    0,
    1.5,
    [],
    {},
    [ALICE],
    {"name": ALICE},
    b"alice@example.com",
    datetime.date.min,
]


def read(kind: str, **variables: Any) -> list[dict[str, Any]]:
    if kind == "transfer":
        variables.setdefault("node", NODE)
    return read_requests(kind, variables)


def refused(kind: str, field: str, **variables: Any) -> str:
    """The message, which begins with the field's name; it is one line, and a short one."""
    with pytest.raises(Invalid) as caught:
        read(kind, **variables)
    message = str(caught.value)
    assert caught.value.field == field, message
    assert message.startswith(f"{field}: ")
    assert message.isprintable(), message
    assert len(message) < 400
    assert "Traceback" not in message
    return message


def assert_plain(value: Any) -> None:
    """Nothing of it is a class of Ansible's, so nothing of it is ever a template again."""
    assert type(value) in (str, int, bool, list, dict, type(None)), type(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(item)


# ---- which instances


@pytest.mark.parametrize("kind", OF_INSTANCES)
def test_one_name_or_a_list_of_names(kind: str) -> None:
    (one,) = read(kind, instance=ALICE)
    assert one["instance"] == ALICE
    for several in ([ALICE, BOB], json.dumps([ALICE, BOB]), f'  ["{ALICE}", "{BOB}"]'):
        assert [found["instance"] for found in read(kind, instances=several)] == [ALICE, BOB]
    assert [found["instance"] for found in read(kind, instances=[ALICE])] == [ALICE]


@pytest.mark.parametrize("kind", OF_INSTANCES)
@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused(kind: str, name: str) -> None:
    refused(kind, "instance", instance=name)
    refused(kind, "instances[1]", instances=[ALICE, name])


@pytest.mark.parametrize("kind", OF_INSTANCES)
@pytest.mark.parametrize("name", NO_TEXTS)
def test_what_is_no_text_is_no_name(kind: str, name: Any) -> None:
    if kind == "provision" and isinstance(name, Mapping):
        with pytest.raises(Invalid):
            read(kind, instances=[name])
        return
    refused(kind, "instance", instance=name)
    refused(kind, "instances[1]", instances=[ALICE, name])


@pytest.mark.parametrize("kind", OF_INSTANCES)
def test_one_of_the_two_variables_is_needed(kind: str) -> None:
    for variables in ({}, {"instance": None}, {"instance": ALICE, "instances": [ALICE]}, {"instances": None}):
        message = refused(kind, "instance", **variables)
        assert message == "instance: set one of instance (a name) and instances (a list)"


@pytest.mark.parametrize("kind", OF_INSTANCES)
@pytest.mark.parametrize(
    "several",
    ["", ALICE, f"{ALICE},{BOB}", "[", "[alice@example.com]", "[" * 100_000, [], {}, {ALICE: {}}, 1, True],
)
def test_what_is_no_list_of_names_is_refused(kind: str, several: Any) -> None:
    assert refused(kind, "instances", instances=several) == "instances: is not a list of names"


@pytest.mark.parametrize("kind", OF_INSTANCES)
def test_nobody_is_there_twice(kind: str) -> None:
    assert refused(kind, "instances", instances=[ALICE, BOB, ALICE]) == f"instances: {ALICE} is there twice"


# ---- which node


@pytest.mark.parametrize("kind", [*OF_INSTANCES, *OF_NODES])
def test_a_node_is_a_host_name(kind: str) -> None:
    who = {"instance": ALICE} if kind in OF_INSTANCES else {}
    (request,) = read(kind, node=NODE, **who)
    assert request.get("node") == (NODE if kind not in ("disconnect", "remove") else None)


@pytest.mark.parametrize("kind", ["provision", "transfer", "drift", "reconcile"])
@pytest.mark.parametrize("node", NO_NODES)
def test_what_is_no_node_is_refused(kind: str, node: str) -> None:
    refused(kind, "node", node=node, **({"instance": ALICE} if kind in OF_INSTANCES else {}))


@pytest.mark.parametrize("kind", ["provision", "transfer", "drift", "reconcile"])
@pytest.mark.parametrize("node", NO_TEXTS)
def test_a_node_is_a_text(kind: str, node: Any) -> None:
    message = refused(kind, "node", node=node, **({"instance": ALICE} if kind in OF_INSTANCES else {}))
    assert message == "node: is not a text"


def test_some_need_a_node() -> None:
    for variables in ({"instance": ALICE}, {"instance": ALICE, "node": None}):
        with pytest.raises(Invalid, match=r"^node: (is needed|set one of)"):
            read_requests("transfer", variables)
    for asked in ({}, {"node": None}):
        with pytest.raises(Invalid, match=r"^node: (is needed|set one of)"):
            read_requests("reconcile", asked)
        assert read_requests("drift", asked) == [{"node": None}]
        (request,) = read_requests("provision", {"instance": ALICE, **asked})
        assert "node" not in request


# ---- what is provisioned


def test_provision_takes_peers_for_all_or_for_each() -> None:
    peers = [
        {"name": "phone"},
        {"public_key": "x", "allowed_ips": ["10.0.0.0/8"], "persistent_keepalive": 25},
    ]
    (request,) = read("provision", instance=ALICE, peers=peers, prefix_length="25")
    assert request == {"instance": ALICE, "peers": peers, "prefix_length": 25}
    assert read("provision", instance=ALICE, peers=json.dumps(peers)) == [{"instance": ALICE, "peers": peers}]
    several = [{"instance": ALICE, "peers": [{"name": "tablet"}], "node": NODE}, BOB]
    assert read("provision", instances=several, peers=peers, node="de1.example.com") == [
        {"instance": ALICE, "peers": [{"name": "tablet"}], "node": NODE},
        {"instance": BOB, "peers": peers, "node": "de1.example.com"},
    ]


def test_what_is_none_is_not_there() -> None:
    (request,) = read("provision", instances=[{"instance": ALICE, "peers": None, "node": None}])
    assert request == {"instance": ALICE, "peers": []}
    (request,) = read("provision", instance=ALICE, peers=[{"name": "phone", "preshared_key": None}])
    assert request["peers"] == [{"name": "phone"}]


@pytest.mark.parametrize(
    ("peers", "field"),
    [
        ("phone", "peers"),
        ("[phone]", "peers"),
        ("[" * 100_000, "peers"),
        ({"name": "phone"}, "peers"),
        (1, "peers"),
        (True, "peers"),
        (["phone"], "peers[0]"),
        ([{"name": "phone"}, None], "peers[1]"),
        ([{"name": "phone", "private_key": "k" * 43 + "="}], "peers[0]"),
        ([{"nam\ne": "phone"}], "peers[0]"),
        ([{1: "phone"}], "peers[0]"),
        ([{"x" * 500: "phone"}], "peers[0]"),
        ([{"endpoint": "192.0.2.1:51820"}], "peers[0]"),
        *(([{field: value}], f"peers[0].{field}")
          for field in ("name", "public_key", "preshared_key", "allowed_ips", "persistent_keepalive")
          for value in (datetime.date.min, b"x", {"x"}, {}, {"x": "y"}, 1.5, float("nan"), 10**5000, object())),
        ([{"allowed_ips": ["10.0.0.0/8", ["10.0.0.0/8"]]}], "peers[0].allowed_ips[1]"),
        ([{"allowed_ips": ["10.0.0.0/8", datetime.date.min]}], "peers[0].allowed_ips[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_is_no_peer_is_refused(peers: Any, field: str) -> None:
    assert "kkkk" not in refused("provision", field, instance=ALICE, peers=peers)
    refused("provision", field, instances=[{"instance": ALICE, "peers": peers}])


def test_unknown_fields_of_an_instance_are_refused() -> None:
    message = refused("provision", "instances[0]", instances=[{"instance": ALICE, "listen_port": 1}])
    assert message == "instances[0]: 'listen_port' is not one of instance, peers, node, prefix_length"
    for kind in ("disconnect", "transfer", "remove"):
        refused(kind, "instances[0]", instances=[{"instance": ALICE}])


@pytest.mark.parametrize(
    "length",
    [0, 31, -1, "x", "", "2 4", " 24", "2_4", "24.0", 24.0, True, [24], "\u0662\u0664", "9" * 5000, 10**5000,
     float("inf"), datetime.date.min],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_prefix_length_is_refused(length: Any) -> None:
    refused("provision", "prefix_length", instance=ALICE, prefix_length=length)


def test_an_encrypted_value_is_refused_and_not_shown() -> None:
    """A file that is encrypted as a whole is the way to keep a preshared key."""
    vaulted = EncryptedString(ciphertext="$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    refused(
        "provision", "peers[0].preshared_key", instance=ALICE, peers=[{"name": "x", "preshared_key": vaulted}]
    )
    refused("provision", "prefix_length", instance=ALICE, prefix_length=vaulted)
    refused("provision", "instance", instance=vaulted)
    refused("provision", "node", instance=ALICE, node=vaulted)


# ---- how a node is reconciled


def test_the_switches_have_the_defaults_of_the_contract() -> None:
    assert read("reconcile", node=NODE) == [
        {
            "node": NODE,
            "reconcile_missing": True,
            "reconcile_mismatched": True,
            "remove_unknown": False,
            "max_removals": None,
        }
    ]
    (request,) = read("reconcile", node=NODE, reconcile_missing="no", remove_unknown="TRUE", max_removals="5")
    assert (request["reconcile_missing"], request["remove_unknown"], request["max_removals"]) == (
        False,
        True,
        5,
    )


@pytest.mark.parametrize("name", ["reconcile_missing", "reconcile_mismatched", "remove_unknown"])
@pytest.mark.parametrize("value", ["", "maybe", "{{ true }}", 1, 0, None, [], "y", "t", 2])
def test_what_is_no_switch_is_refused(name: str, value: Any) -> None:
    refused("reconcile", name, node=NODE, **{name: value})


@pytest.mark.parametrize("value", [-1, "-1", True, "many", 2**31, 1.5, [], ""])
def test_what_is_no_limit_is_refused(value: Any) -> None:
    refused("reconcile", "max_removals", node=NODE, max_removals=value)


# ---- what Ansible notes on values


def test_nothing_that_ansible_notes_on_values_stays_on_them(tmp_path: Path) -> None:
    """Of extra vars Ansible notes that they are templates that may be evaluated."""
    (tmp_path / "vars.yml").write_text(
        "instance: alice@example.com\nnode: nl1.example.com\nprefix_length: 24\npeers:\n"
        '- {name: \'{{ lookup("pipe", "id") }}\', allowed_ips: [10.0.0.0/8], persistent_keepalive: 25, public_key: x}\n'
    )
    variables = DataLoader().load_from_file(str(tmp_path / "vars.yml"), trusted_as_template=True)
    assert type(variables["peers"][0]["name"]) is not str
    for kind in ("provision", "transfer", "disconnect"):
        assert_plain(read_requests(kind, variables))
    (request,) = read_requests("provision", variables)
    assert request["peers"][0]["name"] == '{{ lookup("pipe", "id") }}'
    assert_plain(
        read_requests("transfer", {"instance": trust_as_template(ALICE), "node": trust_as_template(NODE)})
    )
    assert_plain(read_requests("remove", {"instances": trust_as_template(json.dumps([ALICE, BOB]))}))
    assert_plain(read_requests("drift", {"node": trust_as_template("n")}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates()
    | st.sampled_from([ALICE, NODE, trust_as_template("{{ x }}"), "[]", "[[", '["a@example.com"]']),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["instance", "peers", "node", "prefix_length", "name", "public_key", "allowed_ips"])
        | st.text(max_size=3),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@given(
    st.sampled_from([*OF_INSTANCES, *OF_NODES]),
    st.dictionaries(
        st.sampled_from(
            ["instance", "instances", "node", "peers", "prefix_length", "remove_unknown", "max_removals"]
        ),
        anything,
    ),
)
def test_whatever_comes_it_is_read_or_refused(kind: str, variables: dict[str, Any]) -> None:
    try:
        requests = read_requests(kind, variables)
    except Invalid as error:
        requests, message = [], str(error)
    else:
        message = "none"
    assert message.isprintable()
    assert len(message) < 400
    use(["k" * 43 + "="])
    for request in requests:
        assert_plain(request)
        kept = sealed(request)
        json.dumps(kept)
        if "peers" in request:
            assert unsealed_peers(kept) == request["peers"]
            assert kept["peers"] == len(request["peers"])


def test_preshared_keys_are_kept_encrypted_and_the_rotation_finds_them() -> None:
    old, new = ("b" * 42 + "A=", "c" * 42 + "A=")
    use([old])
    (request,) = read(
        "provision", instance=ALICE, peers=[{"name": "phone", "preshared_key": "k" * 42 + "A="}]
    )
    kept = sealed(request)
    assert "kkk" not in json.dumps(kept)
    use([new, old])
    again = renewed_within(kept)
    use([new])
    assert unsealed_peers(again) == request["peers"]
    assert {**kept, "peers_sealed": ""} == {**again, "peers_sealed": ""}


@pytest.mark.parametrize("variables", [{}, {"node": NODE}, {"nodes": [NODE]}], ids=["all", "one", "a list"])
def test_how_long_a_node_has_to_answer(variables: dict[str, Any]) -> None:
    assert "timeout" not in read_requests("drift", variables)[0]
    for seconds in (1, "30", 3600):
        assert read_requests("drift", {**variables, "timeout": seconds})[0]["timeout"] == int(seconds)
    for wrong in (0, -1, 3601, "soon", "{{ 5 }}", [5], True, 1.5, ""):
        with pytest.raises(Invalid, match="timeout"):
            read_requests("drift", {**variables, "timeout": wrong})
    # It is nothing to a repair.
    assert "timeout" not in read_requests("reconcile", {"node": NODE, "timeout": 5})[0]
