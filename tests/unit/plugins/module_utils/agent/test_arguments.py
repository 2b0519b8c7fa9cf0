"""Arguments are taken and refused as AnsibleModule does it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.arguments import (
    checked,
    hidden,
    require_own_folder,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.modules import MODULES, run
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import pack
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key

PEER = {"public_key": peer_key("a"), "allowed_ips": ["10.0.0.2/32"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("wg_info", {}),
    ("wg_info", {"interfaces": "wg0,wg1", "peers": "no"}),
    ("wg_info", {"interfaces": ["wg0", 5], "peers": 0}),
    ("wg_info", {"interfaces": 5}),
    ("wg_info", {"interfaces": {"a": 1}}),
    ("wg_info", {"peers": "perhaps"}),
    ("wg_info", {"peers": []}),
    ("wg_info", {"colour": "red", "shape": 1}),
    ("wg_peer", {}),
    ("wg_peer", {"interface": "wg0", **PEER, "persistent_keepalive": "25"}),
    ("wg_peer", {"interface": "wg0", "persistent_keepalive": "often"}),
    ("wg_peer", {"interface": "wg0", "persistent_keepalive": ["1"]}),
    ("wg_peer", {"interface": "wg0", "state": "here"}),
    ("wg_peer", {"interface": "wg0", "peers": [PEER, {**PEER, "state": "absent", "name": 5}]}),
    ("wg_peer", {"interface": "wg0", "peers": [{"allowed_ips": "10.0.0.2,10.0.0.3"}]}),
    ("wg_peer", {"interface": "wg0", "peers": [{**PEER, "colour": "red"}]}),
    ("wg_peer", {"interface": "wg0", "peers": [{**PEER, "state": "here"}]}),
    ("wg_peer", {"interface": "wg0", "peers": PEER}),
    ("wg_peer", {"interface": "wg0", "_packed": "eA=="}),
    ("wg_instance", {"instances": [{"name": "wg0", "peers": [PEER], "enabled": "off", "mtu": 1380}]}),
    ("wg_instance", {"instances": [{"state": "present"}]}),
    ("wg_instance", {"instances": [5]}),
    ("wg_instance", {"name": 7, "addresses": [], "purge_peers": 1, "max_removals": "0"}),
    ("wg_instance", {"name": "wg0", "purge_peers": 2}),
    ("wg_instance", {"name": "wg0", "max_removals": True}),
    ("wg_drift", {"interfaces": [{"interface": "wg0", "state": "any"}], "complete": "y"}),
    ("wg_drift", {"interfaces": [{"interface": "wg0", "state": "some"}]}),
]


@pytest.mark.parametrize(("module", "arguments"), CASES, ids=[f"{m} {a}"[:60] for m, a in CASES])
def test_as_ansible_does_it(module: str, arguments: dict[str, Any]) -> None:
    spec = MODULES[module].spec()
    theirs = ArgumentSpecValidator(spec).validate(arguments)
    if theirs.error_messages:
        with pytest.raises(InvalidInput):
            checked(arguments, spec)
    else:
        assert checked(arguments, spec) == theirs.validated_parameters


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        ("wg_peer", {"colour": "red"}, "Unsupported parameters: 'colour'. Supported parameters include: allowed_ips"),
        ("wg_peer", {"state": "absent"}, "missing required arguments: interface"),
        ("wg_peer", [], "arguments is not a mapping"),
        ("wg_peer", {"interface": "wg0", "state": "x"}, "value of state must be one of: present, absent, got: 'x'"),
        ("wg_peer", {"interface": "wg0", "peers": [{}]}, "missing required arguments: public_key found in peers[0]"),
        ("wg_info", {"peers": "perhaps"}, "argument 'peers' is of type str and 'perhaps' could not be"),
        # Ansible would make a text of it, which then is no name either.
        ("wg_peer", {"interface": ["wg0"]}, "argument 'interface' is of type list and "),
        ("wg_peer", {"interface": "wg0", "_packed": "!"}, "_packed: is not what the action plugin sends"),
        ("wg_instance", {"src": "/etc/shadow"}, "src: is read on the controller"),
        *((module, {**arguments, "config_dir": folder}, "config_dir: through the agent it is /etc/wireguard, no other")
          for module, arguments in (
              ("wg_info", {}), ("wg_drift", {}), ("wg_peer", {"interface": "wg0"}), ("wg_instance", {})
          )
          for folder in ("/tmp", "/etc", "/etc/wireguard/../cron.d", "etc/wireguard", "~")),
        ("wg_instance", {"instances": [{"name": "wg0"}, {"name": "wg1", "config_dir": "/tmp"}]}, "instances[1].config"),
        ("wg_instance", {"_packed": pack({"instances": [{"config_dir": ["/tmp"]}]})}, "instances[0].config_dir: "),
        ("wg_instance", {"_packed": pack({"config_dir": "/tmp"})}, "config_dir: through the agent"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_run_says_so_as_it_would_exit(module: str, arguments: Any, told: str) -> None:
    answer = run(module, arguments, check_mode=True, with_diff=False)
    assert answer["failed"] is True
    assert told in answer["msg"]


def test_the_own_folder_may_be_named() -> None:
    for folder in (None, "", "/etc/wireguard", "/etc/wireguard/"):
        require_own_folder({"config_dir": folder, "instances": [{"config_dir": folder}, "x"]})


def test_secrets_are_found_wherever_they_stand() -> None:
    arguments = {
        "private_key": private_key("a"),
        "instances": [
            {"private_key": private_key("b"), "peers": [{"preshared_key": preshared_key("c")}, 5]},
            "x",
        ],
    }
    assert hidden(arguments, MODULES["wg_instance"].spec()) == {
        private_key("a"), private_key("b"), preshared_key("c"),
    }  # fmt: skip
