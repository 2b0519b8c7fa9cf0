"""playbooks/agent.yml on a node with systemd: the rights of the agent's processes, and that secret, certificate and
code change while calls go on. The scenario `agent` of molecule has its life from deployment to removal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    Agent,
    AgentError,
    AgentRefused,
    AgentUnreachable,
    health,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_transport import run_module
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from tests.lab.fleet import ROOT
from tests.systemd.api_host import ensure_api_image
from tests.systemd.node import NodeFactory, SystemdNode

NAME = "agent-node"
SERVICE = "vpnfleet-agent.service"
RUNNING = "/etc/vpnfleet-agent/running"


@dataclass
class Deployment:
    """A node with systemd in a registry of its own."""

    node: SystemdNode
    folder: Path
    told: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return {"VPNFLEET_DATABASE_URL": f"sqlite:///{self.folder}/registry.db"}

    def play(self, playbook: str, *options: str, **asked: Any) -> int:
        """Run a playbook; how many tasks changed something on the node."""
        given = self.folder / "variables.json"
        given.write_text(json.dumps(asked), encoding="utf-8")
        argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(self.folder / "registry.yml")]
        result = subprocess.run(
            [*argv, "-e", f"@{given}", *options, str(ROOT / "playbooks" / f"{playbook}.yml")],
            env={**self.node.ansible_env(), **self.variables},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.told.append(result.stdout + result.stderr)
        assert result.returncode == 0, self.told[-1][-6000:]
        recap = re.search(rf"^{NAME} .*changed=(\d+)", result.stdout, re.M)
        return int(recap.group(1)) if recap else 0

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        with mock.patch.dict(os.environ, self.variables):
            registry = open_registry(schema_required=True)
        try:
            yield registry
        finally:
            registry.close()

    def agent(self, registry: Registry) -> Agent | None:
        with registry.read() as session:
            return agents.agent_of(session, NAME)

    def here(self) -> list[str]:
        """What there is of the agent on the node."""
        script = (
            "ls -d /usr/local/lib/vpnfleet-agent /etc/vpnfleet-agent /var/lib/vpnfleet-agent "
            "/etc/systemd/system/vpnfleet-agent* /etc/systemd/system/*.wants/vpnfleet-agent* 2>/dev/null; "
            "getent passwd vpnfleet-agent"
        )
        return self.node.run(["sh", "-c", script], check=False).stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def fleet(systemd_nodes: NodeFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    node = systemd_nodes(NAME, ensure_api_image())
    # There is no way to a mirror: apt's lists are as new as they get.
    node.run(["touch", "/var/lib/apt/lists"])
    # Nothing of WireGuard has been set up on it.
    node.run(["rm", "-rf", "/etc/wireguard"])
    fleet = Deployment(node, tmp_path_factory.mktemp("agent"))
    (fleet.folder / "registry.yml").write_text("plugin: vpnfleet.wireguard.registry\n", encoding="utf-8")
    (fleet.folder / "group_vars").mkdir()
    variables = json.loads(node.inventory.read_text(encoding="utf-8"))["nodes"]["hosts"][NAME]
    del variables["ansible_host"]
    (fleet.folder / "group_vars" / "nodes.yml").write_text(json.dumps(variables), encoding="utf-8")
    with mock.patch.dict(os.environ, fleet.variables):
        registry = open_registry()
    with registry.write() as session:
        session.add(
            Node(
                name=NAME,
                ansible_host=node.address,
                endpoint=node.address,
                ip_pool_cidr="10.64.0.0/16",
                ip6_pool_cidr="fd64::/48",
            )
        )
    registry.close()
    fleet.play("agent", "--check", "--diff")
    assert fleet.here() == []
    assert fleet.play("agent", "-vvv", "--diff") > 0
    yield fleet
    node.remove()


def asking(
    fleet: Deployment, registry: Registry, ended: threading.Event, told: list[str]
) -> threading.Thread:
    """Call a module every 100 ms, as a playbook does, until the end; what fails is told, else an empty text."""

    def work() -> None:
        while not ended.wait(0.1):
            agent = fleet.agent(registry)
            try:
                assert agent is not None
                run_module(agent, lambda: fleet.agent(registry), "wg_info", {"peers": False}, False, False)
            except (AgentError, AssertionError) as error:
                told.append(f"{time.strftime('%H:%M:%S')} {error}")
            else:
                told.append("")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_its_processes_have_few_rights(fleet: Deployment) -> None:
    # The process that faces the network has nothing at all.
    script = (
        f"main=$(systemctl show --value --property=MainPID {SERVICE}); "
        "for p in $main $(cat /proc/$main/task/*/children); do "
        "echo $(id -un $(stat -c %u /proc/$p)) $(sed -n 's/^Cap[EB][fn][fd]:.//p' /proc/$p/status); done"
    )
    shown = sorted(set(fleet.node.run(["sh", "-c", script]).stdout.splitlines()))
    # CAP_KILL, SETGID, SETUID, SETPCAP, NET_ADMIN
    nothing, few = "0" * 16, f"{sum(1 << number for number in (5, 6, 7, 8, 12)):016x}"
    assert shown == [f"root {few} {few}", f"vpnfleet-agent {nothing} {nothing}"]


def test_a_front_that_outlives_the_agent_is_ended_and_nothing_else(fleet: Deployment) -> None:
    # As one that has taken back that the kernel ends it with the agent; and as a wireguard-go that a call has started.
    script = (
        f"main=$(systemctl show --value --property=MainPID {SERVICE}); "
        "group=/sys/fs/cgroup$(sed -n 's/^0:://p; s,^[0-9]*:name=systemd:,/systemd,p' /proc/$main/cgroup | head -1); "
        "for user in vpnfleet-agent root; do "
        "setpriv --reuid=$user --clear-groups sleep 600 >/dev/null 2>&1 & pid=$!; "
        'until [ "$(stat -c %U /proc/$pid)" = $user ]; do sleep 0.1; done; echo $pid | tee $group/cgroup.procs; done; '
        "kill -KILL $main; "
        # Until there is another one.
        f"until new=$(systemctl show --value --property=MainPID {SERVICE}) && [ $new != $main ] && [ $new != 0 ] && "
        f"systemctl is-active --quiet {SERVICE}; do sleep 0.1; done"
    )
    front, other = fleet.node.run(["timeout", "60", "sh", "-c", script]).stdout.split()
    try:
        found = fleet.node.run(["ps", "-o", "stat=,user:20=", "-p", f"{front},{other}"], check=False).stdout
        assert [line.split()[1] for line in found.splitlines() if line[0] != "Z"] == ["root"]
    finally:
        fleet.node.run(["kill", other], check=False)


def test_the_directory_of_wireguard_is_made_and_not_changed(fleet: Deployment) -> None:
    stat = ["stat", "-c", "%a %U:%G", "/etc/wireguard"]
    assert fleet.node.run(stat).stdout == "700 root:root\n"
    try:
        fleet.node.run(["sh", "-c", "chgrp adm /etc/wireguard && chmod 0750 /etc/wireguard"])
        fleet.node.run(["systemctl", "restart", SERVICE])
        assert fleet.node.run(stat).stdout == "750 root:adm\n"
    finally:
        fleet.node.run(["sh", "-c", "chgrp root /etc/wireguard && chmod 0700 /etc/wireguard"])


def test_secret_certificate_and_code_change_while_calls_go_on(fleet: Deployment) -> None:
    with fleet.registry() as registry:
        before = fleet.agent(registry)
        assert before is not None
        told: list[str] = []
        ended = threading.Event()
        asks = asking(fleet, registry, ended, told)
        try:
            fleet.play("agent", "-vvv", rotate=True)
            # As a run that brings other code, or died before it came to starting it.
            fleet.node.run(["sed", "-i", "/^code/d", RUNNING])
            assert fleet.play("agent") > 0
            assert fleet.play("agent") == 0
        finally:
            ended.set()
            asks.join(60)
        after = fleet.agent(registry)
    assert len(told) > 20
    assert [one for one in told if one] == []
    assert after is not None
    assert after.secret != before.secret
    assert after.certificate != before.certificate
    assert after.secret not in "".join(fleet.told)
    assert before.secret not in "".join(fleet.told)
    # What it was is worth nothing any more.
    with pytest.raises(AgentRefused, match="refuses the signature"):
        health(Agent(after.url, before.secret, after.certificate), 30)
    with pytest.raises(AgentUnreachable, match="certificate is not the one"):
        health(Agent(after.url, after.secret, before.certificate), 30)
