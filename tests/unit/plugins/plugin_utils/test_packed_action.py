from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.action import wg_drift, wg_instance, wg_peer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.packed_action import parse

KEY = "k" * 42 + "A="
PEERS = [{"public_key": KEY, "allowed_ips": ["10.0.0.2/32"]}]

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# ---- parse


@given(json_data)
def test_json_is_read_as_it_is(data: Any) -> None:
    assert parse(json.dumps(data)) == data


def test_yaml_is_read() -> None:
    text = "instances:\n- name: wg0\n  peers: [{public_key: x, allowed_ips: ['10.0.0.1']}]\n"
    peers = [{"public_key": "x", "allowed_ips": ["10.0.0.1"]}]
    assert parse(text) == {"instances": [{"name": "wg0", "peers": peers}]}


def test_templates_are_plain_text() -> None:
    assert parse("- \"{{ lookup('pipe', 'id') }}\"\n") == ["{{ lookup('pipe', 'id') }}"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b: c\nprivate_key: hunter2\n", "line 1"),
        ("- a\n- [hunter2\n", "line 3"),
        ("- a\n- !!python/object/apply:os.system ['hunter2']\n", "line 2"),
        ("- hunter2\n- *nothing\n", "line 2"),
        ("hunter2: \x07", "it cannot be read"),
        ('{"private_key": "hunter2"', "line [12]"),
        ("{[hunter2]: x}", "line 1"),
    ],
)
def test_a_broken_file_is_refused_by_the_line_and_not_repeated(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=rf"^{place}$") as caught:
        parse(text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# ---- the action as Ansible runs it, up to the point where the module would start


def run(plugin: Any, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments that the module would get, unpacked as the module does."""
    sent: list[dict[str, Any]] = []
    task = SimpleNamespace(
        args=arguments,
        async_val=0,
        check_mode=False,
        action="vpnfleet.wireguard.wg_x",
        diff=False,
        delegate_to=None,
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"))

    class Action(plugin.ActionModule):  # type: ignore[misc]
        def _find_needle(self, dirname: str, needle: str) -> str:
            assert dirname == "files"
            return str(folder / needle)

        def _execute_module(self, **named: Any) -> dict[str, Any]:
            assert named["module_name"] == task.action
            sent.append(named["module_args"])
            return {"changed": True}

    action = Action(task, connection, SimpleNamespace(), DataLoader(), None, None)
    assert action.run(task_vars={})["changed"] is True
    assert task.args == arguments
    for name in ("instances", "interfaces", "peers"):
        assert name not in sent[0] or not isinstance(sent[0][name], list)
    return parameters(sent[0])


def test_long_lists_travel_packed(tmp_path: Path) -> None:
    assert run(wg_peer, {"interface": "wg0", "peers": PEERS}, tmp_path) == {
        "interface": "wg0",
        "peers": PEERS,
    }
    both = {"name": "wg0", "peers": PEERS, "addresses": ["10.0.0.1/24"]}
    assert run(wg_instance, both, tmp_path) == both


def test_what_is_no_list_is_left_to_the_module(tmp_path: Path) -> None:
    assert run(wg_peer, {"interface": "wg0", "peers": "many"}, tmp_path) == {
        "interface": "wg0",
        "peers": "many",
    }


@pytest.mark.parametrize("name", ["instances", "wireguard_instances", None])
@pytest.mark.parametrize("as_yaml", [True, False])
def test_src_fills_the_instances(tmp_path: Path, name: str | None, as_yaml: bool) -> None:
    instances = [{"name": "wg0", "peers": PEERS, "post_up": ["echo {{ x }}"]}]
    text = json.dumps({name: instances, "other": 1} if name else instances)
    (tmp_path / "f").write_text(("---\n" if as_yaml else "") + text)
    assert run(wg_instance, {"src": "f", "state": "present"}, tmp_path) == {
        "state": "present",
        "instances": instances,
    }


def test_src_of_instances_serves_drift(tmp_path: Path) -> None:
    instances = [
        {"name": "wg0", "peers": PEERS, "listen_port": 5, "private_key": "x"},
        {"name": "wg1", "peers": []},
        {"name": "wg2"},
        {"name": "wg3", "peers": PEERS, "state": "absent"},
        {"name": "wg4", "peers": PEERS, "state": "disconnected"},
    ]
    (tmp_path / "f").write_text(json.dumps({"wireguard_instances": instances}))
    assert run(wg_drift, {"src": "f"}, tmp_path) == {
        "interfaces": [
            {"interface": "wg0", "peers": PEERS, "listen_port": 5},
            {"interface": "wg1", "peers": [], "listen_port": None},
        ]
    }


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ({"src": "f", "instances": []}, "[]", "^src and instances are two ways to say the same"),
        ({"src": "f"}, "a: b: hunter2", "^f is neither JSON nor YAML: line 1$"),
        ({"src": "f"}, '{"peers": []}', "^f holds none of instances, wireguard_instances$"),
        ({"src": "f"}, '{"instances": {}}', "^f holds no list of instances$"),
        ({"src": "f"}, '"instances"', "^f holds no list of instances$"),
        ({"src": "f"}, "", "^f holds no list of instances$"),
    ],
)
def test_a_useless_src_is_refused(tmp_path: Path, arguments: dict[str, Any], text: str, message: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(AnsibleActionFail, match=message):
        run(wg_instance, arguments, tmp_path)
