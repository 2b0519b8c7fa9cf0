"""The ways in which parameters reach the modules: files on the controller, vaulted values, background tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import wg_node
from tests.e2e.ansible_run import Task, Vaulted, play, task
from tests.e2e.node_state import read_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node

A: dict[str, Any] = {
    "public_key": peer_key("a"),
    "allowed_ips": ["10.7.0.2/32"],
    "preshared_key": preshared_key("a"),
}
INSTANCE: dict[str, Any] = {
    "name": "wg7",
    "private_key": private_key("wg7"),
    "listen_port": 20007,
    "addresses": ["10.7.0.1/16"],
    "peers": [A],
}


@pytest.fixture(autouse=True)
def empty_node(node: Node) -> Iterator[None]:
    empty(node)
    yield
    empty(node)


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse\n")
    return path


def vault(password: Path, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "vault", *arguments, "--vault-password-file", str(password)],
        input=text,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


FORMS = {
    "a list, JSON": json.dumps([INSTANCE]),
    "instances, JSON": json.dumps({"instances": [INSTANCE]}),
    "wireguard_instances, YAML": yaml.safe_dump({"other": 1, "wireguard_instances": [INSTANCE]}),
    "a list, YAML": yaml.safe_dump([INSTANCE], default_flow_style=True),
}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", FORMS)
def test_instances_come_from_a_file(
    lab: Lab, node: Node, tmp_path: Path, password: Path, form: str, encrypted: bool
) -> None:
    src = tmp_path / "instances"
    src.write_text(FORMS[form])
    options: list[str] = []
    if encrypted:
        vault(password, "encrypt", str(src))
        assert src.read_text().startswith("$ANSIBLE_VAULT;")
        options = ["--vault-password-file", str(password)]
    drift = {"src": str(src)} if "wireguard_instances" in form else {"interface": "wg7", "peers": [A]}
    run = play(
        lab,
        node,
        [
            task("check", "wg_instance", {"src": str(src)}, check=True),
            task("real", "wg_instance", {"src": str(src)}),
            task("again", "wg_instance", {"src": str(src)}),
            task("drift", "wg_drift", drift),
        ],
        options,
    )
    assert run["check"].changed, run["check"].message
    assert run["real"].diff == run["check"].diff
    assert not run["again"].changed
    assert run["drift"].answer["has_drift"] is False, run["drift"].message
    runs = read_state(node).interfaces["wg7"]
    assert (runs.private_key, runs.listen_port) == (INSTANCE["private_key"], 20007)
    assert runs.peers[peer_key("a")].preshared_key == A["preshared_key"]


def test_a_value_from_the_vault(lab: Lab, node: Node, password: Path) -> None:
    texts = {
        name: Vaulted(vault(password, "encrypt_string", "--stdin-name", name, text=text).partition("\n")[2])
        for name, text in (("key", INSTANCE["private_key"]), ("secret", A["preshared_key"]))
    }
    texts = {
        name: Vaulted("\n".join(line.strip() for line in text.splitlines()) + "\n")
        for name, text in texts.items()
    }
    in_variables = {
        **INSTANCE,
        "private_key": "{{ key }}",
        "peers": [{**A, "preshared_key": "{{ secret }}"}],
    }
    in_place = {**INSTANCE, "private_key": texts["key"], "peers": [{**A, "preshared_key": texts["secret"]}]}
    run = play(
        lab,
        node,
        [
            task("variables", "wg_instance", in_variables),
            task("in place", "wg_instance", in_place),
            task("batch", "wg_instance", {"instances": [in_place]}),
            task("peer", "wg_peer", {"interface": "wg7", **A, "preshared_key": texts["secret"]}),
        ],
        ["--vault-password-file", str(password)],
        variables=texts,
    )
    assert run["variables"].changed, run["variables"].message
    for name in ("in place", "batch", "peer"):
        assert not run[name].failed, run[name].message
        assert not run[name].changed
    runs = read_state(node).interfaces["wg7"]
    assert runs.private_key == INSTANCE["private_key"]
    assert runs.peers[peer_key("a")].preshared_key == A["preshared_key"]


def test_what_a_file_holds_is_no_template(lab: Lab, node: Node, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    bait = "{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}"
    src = tmp_path / "instances.json"
    peer = {**A, "name": bait, "peer_id": bait}
    src.write_text(json.dumps([{**INSTANCE, "peers": [peer], "post_up": [f"true '{bait}'"]}, {"name": bait}]))
    (tmp_path / "interfaces.json").write_text(
        json.dumps([{"interface": "wg7", "peers": [peer, {**A, "name": bait}]}])
    )
    run = play(
        lab,
        node,
        [
            task("real", "wg_instance", {"src": str(src)}),
            task("drift", "wg_drift", {"src": str(tmp_path / "interfaces.json")}),
            {"name": "show", "ansible.builtin.debug": {"msg": "{{ done }}"}, "ignore_errors": True},
        ][:2],
    )
    assert run["real"].failed
    assert run["real"].message.startswith("1 of 2 instances failed. ")
    assert bait in node.read("/etc/wireguard/wg7.conf")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is neither JSON nor YAML: line"),
        ("a: b: c", "is neither JSON nor YAML: line 1"),
        ("{}", "holds none of instances, wireguard_instances"),
        ("7", "holds no list of instances"),
        ("", "holds no list of instances"),
        ('{"instances": {"name": "wg7"}}', "holds no list of instances"),
        (None, "Could not find or access"),
        ("!!python/object/apply:os.system [id]", "is neither JSON nor YAML"),
    ],
    ids=["cut off", "bad YAML", "another mapping", "a number", "empty", "no list", "no file", "an object"],
)
def test_a_file_that_is_none_is_named(
    lab: Lab, node: Node, tmp_path: Path, text: str | None, says: str
) -> None:
    src = tmp_path / "instances.json"
    if text is not None:
        src.write_text(text)
    result = play(lab, node, [task("real", "wg_instance", {"src": str(src)})])["real"]
    assert result.failed
    assert says in result.message
    assert "instances.json" in result.message
    assert read_state(node).interfaces == {}


def test_a_task_in_the_background(lab: Lab, node: Node) -> None:
    run = play(lab, node, [{**task("real", "wg_instance", INSTANCE), "async": 60, "poll": 1}])
    assert run["real"].changed, run["real"].message
    assert list(read_state(node).interfaces["wg7"].peers) == [peer_key("a")]


def test_another_folder(lab: Lab, node: Node) -> None:
    def tasks(folder: str) -> list[Task]:
        elsewhere = {**INSTANCE, "config_dir": folder}
        added = {
            "interface": "wg7",
            "config_dir": folder,
            "public_key": peer_key("b"),
            "allowed_ips": ["10.7.0.3"],
        }
        look = {
            "interface": "wg7",
            "config_dir": folder,
            "peers": [A, {k: added[k] for k in ("public_key", "allowed_ips")}],
        }
        return [
            task("real", "wg_instance", elsewhere),
            task("again", "wg_instance", elsewhere),
            task("peer", "wg_peer", added),
            task("drift", "wg_drift", look),
            task("info", "wg_info", {"config_dir": folder}),
        ]

    run = play(lab, node, tasks("/var/wireguard/deep"))
    assert run["real"].changed, run["real"].message
    assert not run["again"].changed
    assert run["peer"].changed, run["peer"].message
    assert run["drift"].answer["has_drift"] is False
    assert run["info"].answer["interfaces"][0]["config_file"] == "/var/wireguard/deep/wg7.conf"
    state = read_state(node)
    assert [path for path in state.files if path.endswith(".conf")] == ["/var/wireguard/deep/wg7.conf"]
    assert state.files["/var/wireguard/deep/wg7.conf"].mode == "600"
    assert peer_key("b") in state.files["/var/wireguard/deep/wg7.conf"].text
    down = task(
        "down", "wg_instance", {"name": "wg7", "state": "absent", "config_dir": "/var/wireguard/deep"}
    )
    assert play(lab, node, [down])["down"].changed
    state = read_state(node)
    assert state.interfaces == {}
    assert state.files == {}


def test_a_thousand_peers_at_once(lab: Lab, node: Node, tmp_path: Path) -> None:
    """Large changes go by another way (wg syncconf); nothing of what they drop may stay: wg before 1.0.20260223 keeps
    preshared keys and keepalives that a file does not name."""
    nets = [f"10.7.{high}.{low}/32" for high in range(1, 6) for low in range(1, 241)]
    full: list[dict[str, Any]] = [
        {
            "public_key": peer_key(f"many {number}"),
            "allowed_ips": [net],
            "preshared_key": preshared_key(f"many {number}"),
            "persistent_keepalive": 25,
        }
        for number, net in enumerate(nets)
    ]
    bare: list[dict[str, Any]] = [{key: peer[key] for key in ("public_key", "allowed_ips")} for peer in full]
    # Each network with the next one's key.
    turned: list[dict[str, Any]] = [
        {**peer, "allowed_ips": bare[number - 1]["allowed_ips"]} for number, peer in enumerate(bare)
    ]
    steps = {"full": full, "bare": bare, "turned": turned}
    tasks: list[Task] = []
    for name, peers in steps.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([{**INSTANCE, "peers": peers}]))
        asked = {"src": str(tmp_path / f"{name}.json")}
        tasks += [
            task(f"check {name}", "wg_instance", asked, check=True),
            task(f"real {name}", "wg_instance", asked),
            task(f"again {name}", "wg_instance", asked),
            {"name": f"state {name}", "ansible.builtin.raw": "wg show wg7 dump"},
        ]
    run = play(lab, node, tasks)
    for name, peers in steps.items():
        assert run[f"check {name}"].changed, run[f"check {name}"].message
        assert run[f"check {name}"].diff == run[f"real {name}"].diff
        assert not run[f"again {name}"].failed, run[f"again {name}"].message
        assert not run[f"again {name}"].changed
        lines = [line.split("\t") for line in run[f"state {name}"].stdout.splitlines()[1:]]
        assert {line[0]: (line[1], line[3], line[7]) for line in lines} == {
            peer["public_key"]: (
                peer.get("preshared_key", "(none)"),
                peer["allowed_ips"][0],
                str(peer.get("persistent_keepalive", "off")),
            )
            for peer in peers
        }
    answer = run["real full"].answer["instances"][0]
    assert answer["peers_added_count"] == 1200
