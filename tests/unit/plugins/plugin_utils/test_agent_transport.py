"""By which way a module reaches its node: its agent, where variables or the registry say so, else its connection."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.action import wg_info, wg_instance
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets, stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry_action import RegistryAction
from tests.unit.plugins.plugin_utils.answering_server import Server, answering, http
from tests.unit.plugins.plugin_utils.registry.rows import add_node

SECRET = "5ecre7" * 10


def run(
    plugin: Any, arguments: dict[str, Any], variables: dict[str, Any], **of_task: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A module's action: what it returns, and the modules that it had Ansible run."""
    sent: list[dict[str, Any]] = []
    task = SimpleNamespace(
        args=arguments,
        async_val=0,
        check_mode=False,
        diff=False,
        delegate_to=None,
        action=f"vpnfleet.wireguard.{plugin.__name__.rpartition('.')[2]}",
    )
    vars(task).update(of_task)

    class Action(plugin.ActionModule):  # type: ignore[misc]
        def _execute_module(self, **named: Any) -> dict[str, Any]:
            sent.append(named)
            return {"changed": False}

    loader = DataLoader()
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"))
    templar = Templar(loader=loader, variables=variables)
    action = Action(task, connection, SimpleNamespace(), loader, templar, None)
    return action.run(task_vars=variables), sent


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(answering({"changed": True, "instances": []}))
    yield server
    server.close()


def asked(server: Server) -> list[dict[str, Any]]:
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]


def test_a_host_without_an_agent_is_reached_by_its_connection() -> None:
    for variables in ({}, {"vpnfleet_node": {"name": "n", "agent_url": None}}, {"vpnfleet_agent_url": ""}):
        _answer, sent = run(wg_info, {"peers": False}, variables)
        assert [one["module_args"] for one in sent] == [{"peers": False}]


def test_a_host_with_one_is_reached_by_it(server: Server) -> None:
    variables = {
        "url": server.url,
        "vault_secret": SECRET,
        "vpnfleet_agent_url": trust_as_template("{{ url }}"),
        "vpnfleet_agent_secret": trust_as_template("{{ vault_secret }}"),
    }
    instances = [{"name": "wg1"}]
    answer, sent = run(wg_instance, {"instances": instances}, variables, check_mode=True, diff=True)
    assert answer["changed"] is True
    assert sent == []
    (only,) = asked(server)
    assert (only["check_mode"], only["diff"], list(only["arguments"])) == (True, True, ["_packed"])
    answer, _sent = run(wg_info, {"peers": False, "interfaces": ["wg1"]}, variables)
    assert asked(server)[1]["arguments"] == {"peers": False, "interfaces": ["wg1"]}
    assert b"POST /v1/modules/wg_info " in server.requests[1]


def test_a_delegated_task_goes_where_it_is_delegated_to(server: Server) -> None:
    theirs = {"vpnfleet_agent_url": server.url, "vpnfleet_agent_secret": SECRET}
    _answer, sent = run(wg_info, {}, {**theirs, "ansible_delegated_vars": {"n2": {}}}, delegate_to="n2")
    assert (len(sent), server.requests) == (1, [])
    _answer, sent = run(wg_info, {}, {"ansible_delegated_vars": {"n2": theirs}}, delegate_to="n2")
    assert (sent, len(server.requests)) == ([], 1)


def test_what_is_not_said_whole_is_refused() -> None:
    with pytest.raises(AnsibleActionFail, match="vpnfleet_agent_secret is not"):
        run(wg_info, {}, {"vpnfleet_agent_url": "http://127.0.0.1:1"})
    with pytest.raises(AnsibleActionFail, match="async"):
        run(
            wg_info,
            {},
            {"vpnfleet_agent_url": "http://127.0.0.1:1", "vpnfleet_agent_secret": SECRET},
            async_val=10,
        )


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (http(401, b'{"error": "no"}'), AnsibleConnectionFailure),
        (http(400, b'{"error": "no"}'), AnsibleActionFail),
        (http(500, b'{"error": "no"}'), AnsibleActionFail),
    ],
)
def test_who_refuses_the_key_is_not_reached(reply: bytes, kind: type[Exception]) -> None:
    server = Server(lambda _request: reply)
    try:
        with pytest.raises(kind, match="its agent") as caught:
            run(wg_info, {}, {"vpnfleet_agent_url": server.url, "vpnfleet_agent_secret": SECRET})
    finally:
        server.close()
    assert SECRET not in str(caught.value)


# ---- the registry's nodes


@pytest.fixture
def registry(sqlite_registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    monkeypatch.setenv("VPNFLEET_DATABASE_URL", sqlite_registry_url)
    registry = open_registry()
    with registry.write() as session:
        add_node(session, "by-ssh")
        add_node(session, "by-agent")
    yield registry
    registry.close()


def reach(registry: Registry, url: str, secret: str | None = SECRET) -> None:
    with registry.write() as session:
        node = require_node(session, "by-agent")
        node.agent_url, node.agent_secret = url, secret


class Action(RegistryAction):
    """Calls a module; nothing else."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def _execute_module(self, **named: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"by": "connection"}


def call(registry: Registry, name: str) -> tuple[Any, dict[str, Any]]:
    task = SimpleNamespace(check_mode=True, diff=False, async_val=0, args={})
    action = Action(task, SimpleNamespace(_shell=SimpleNamespace(tmpdir="x")), None, DataLoader(), None, None)
    action.registry = registry
    return action.call("vpnfleet.wireguard.wg_drift", {"complete": True}, {"inventory_hostname": name})


def test_the_registry_says_by_which_way(registry: Registry, server: Server) -> None:
    reach(registry, server.url, secret=None)
    for name in ("by-ssh", "by-agent"):  # a URL alone is none
        assert call(registry, name)[1] == {"by": "connection"}
    reach(registry, server.url)
    outcome, answer = call(registry, "by-agent")
    assert (outcome.state, answer["changed"]) == (stages.DONE, True)
    assert call(registry, "by-ssh")[1] == {"by": "connection"}
    assert [one["check_mode"] for one in asked(server)] == [True]


def test_a_node_that_does_not_answer_in_time_is_given_up(registry: Registry) -> None:
    """And the program that talks to it is ended."""
    begun: list[subprocess.Popen[bytes]] = []

    class Hanging(Action):
        def _execute_module(self, **named: Any) -> dict[str, Any]:  # noqa: ARG002
            begun.append(subprocess.Popen(["sleep", "1000"]))
            begun[0].wait()
            return {}

    def ask(kind: type[Action], limit: float | None) -> tuple[Any, dict[str, Any]]:
        task = SimpleNamespace(check_mode=False, diff=False, async_val=0, args={})
        shell = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"))
        action = kind(task, shell, None, DataLoader(), None, None)
        action.registry = registry
        return action.call("vpnfleet.wireguard.wg_drift", {}, {"inventory_hostname": "by-ssh"}, limit)

    outcome, answer = ask(Hanging, 0.5)
    assert (outcome.state, outcome.error) == (stages.FAILED, "the node has not answered within 0.5 s")
    assert answer == {}
    assert begun[0].wait(60) == -signal.SIGTERM
    assert ask(Action, 60) == (stages.Outcome(stages.DONE), {"by": "connection"})
    with pytest.raises(SystemExit):
        ask(Ending, 60)


class Ending(Action):
    """Its process is to end."""

    def _execute_module(self, **named: Any) -> dict[str, Any]:  # noqa: ARG002
        raise SystemExit(1)


def test_how_it_went_is_told_as_of_a_connection(registry: Registry) -> None:
    reach(registry, "http://127.0.0.1:1")
    assert call(registry, "by-agent")[0].state == stages.UNREACHABLE
    for status, state in ((401, stages.UNREACHABLE), (400, stages.FAILED), (500, stages.FAILED)):
        server = Server(answering({"error": "so it is"}, status))
        reach(registry, server.url)
        outcome, answer = call(registry, "by-agent")
        server.close()
        assert (outcome.state, answer) == (state, {})
        assert "so it is" in str(outcome.error)


def test_the_registrys_inventory_is_enough_for_any_module(registry: Registry, server: Server) -> None:
    """The secret is no variable, which could be shown."""
    reach(registry, server.url)
    variables = {"vpnfleet_node": {"name": "by-agent", "agent_url": server.url}}
    answer, sent = run(wg_info, {}, variables)
    assert (answer["changed"], sent) == (True, [])
