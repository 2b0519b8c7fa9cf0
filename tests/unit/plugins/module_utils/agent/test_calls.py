"""Which path leads where, by which method, with what in the body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.calls import call
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.version import VERSION
from tests.unit.plugins.module_utils.generated import key, preshared_key
from tests.unit.plugins.module_utils.printed import ADDRESSES, DEVICE
from tests.unit.plugins.module_utils.stand_in_programs import program


@pytest.fixture(autouse=True)
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has an ip and a wg of its own, and one interface."""
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "addresses").write_text(json.dumps(ADDRESSES))
    peer = f"{key(1)}\t{preshared_key(1)}\t(none)\t10.0.0.2/32\t1700000000\t1\t2\toff\n"
    (tmp_path / "dump").write_text(DEVICE + peer)
    program(tmp_path, "ip", f"case $1 in -json) cat {tmp_path}/addresses ;; *) echo '[]' ;; esac")
    program(
        tmp_path,
        "wg",
        f"""case "$*" in
"show wg0 dump") cat {tmp_path}/dump ;;
"show all listen-port") printf 'wg0\\t51820\\n' ;;
"show all latest-handshakes") printf 'wg0\\tkey\\t1700000000\\n' ;;
"show wg0 peers") echo '{key(1)}' ;;
--version) echo 'wireguard-tools v1.0.20210914 - https://example.com' ;;
*) echo "$*" >&2; exit 9 ;;
esac""",
    )


def asked(path: str, fields: object, method: str = "POST") -> Answer:
    return call(method, path, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "path", ["/v1/health", "/v1/health/", "/v1/health?17", "/v1/health/?a=/v1/modules/x"]
)
def test_health_is_at_its_path_whatever_is_asked_beside_it(path: str) -> None:
    answer = call("GET", path, b"")
    assert (answer.status, answer.body["status"]) == (200, "ok")
    assert answer.body["versions"]["agent"] == VERSION
    assert answer.body["versions"]["wireguard_tools"] == "1.0.20210914"
    assert [one["name"] for one in answer.body["interfaces"]] == ["wg0"]


def test_a_module_answers_as_it_would_exit() -> None:
    answer = asked("/v1/modules/wg_info/?1", {"arguments": {"interfaces": ["wg0"]}, "nonce": "x"})
    assert answer.status == 200
    assert "failed" not in answer.body
    (found,) = answer.body["interfaces"]
    assert (found["name"], found["listen_port"], found["peer_count"]) == ("wg0", 51820, 1)
    assert preshared_key(1) not in str(answer.body)


def test_a_module_that_fails_is_an_answer_too() -> None:
    answer = asked("/v1/modules/wg_peer", {"check_mode": True, "diff": True})
    assert (answer.status, answer.body["failed"]) == (200, True)
    assert "missing required arguments: interface" in answer.body["msg"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "told"),
    [
        ("/v1/modules/command", {}, 404,
         "there is no such module; there are wg_drift, wg_info, wg_instance, wg_peer"),
        ("/v1/modules/wg_info", {"check_mode": "no"}, 400, "check_mode: is neither true nor false"),
        ("/v1/modules/wg_info", {"diff": 1}, 400, "diff: is neither true nor false"),
        ("/v1/modules/wg_info", {"interfaces": []}, 400,
         "body: unknown field 'interfaces'; known are arguments, check_mode, diff, nonce"),
        ("/v1/modules/wg_info", [], 400, "body: is not a JSON object"),
        ("/v1/modules/wg_info/wg0", {}, 404, "there is nothing at this path"),
        ("/v1/modules/", {}, 404, "there is nothing at this path"),
        ("/v1/modules/../health", {}, 404, "there is nothing at this path"),
        ("/v1/modules/" + "a" * 41, {}, 404, "there is nothing at this path"),
        ("/v2/health", {}, 404, "there is nothing at this path"),
        ("/", {}, 404, "there is nothing at this path"),
        ("/v1/wg/a/b/syncconf", {}, 404, "there is nothing at this path"),
        ("/v1/wg/all/syncconf", {}, 404,
         ("Failed to synchronize configuration: interface: 'all' is no interface name: 1 to 15 characters of "
          "a-z A-Z 0-9 _ = + . - and no . or - first")),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_told(path: str, fields: Any, status: int, told: str) -> None:
    answer = asked(path, fields)
    assert (answer.status, answer.body) == (status, {"error": told})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/health", "GET"),
        ("HEAD", "/v1/health/", "GET"),
        ("GET", "/v1/modules/wg_info", "POST"),
        ("DELETE", "/v1/wg/wg0/syncconf?1", "POST"),
    ],
)
def test_each_path_has_its_one_method(method: str, path: str, allowed: str) -> None:
    answer = asked(path, {}, method)
    assert (answer.status, answer.headers) == (405, {"Allow": allowed})
    assert answer.body == {"error": f"{method} is not allowed here, {allowed} is"}
