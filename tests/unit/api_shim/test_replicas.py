"""Workers as processes of their own on one registry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import VARIABLE
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from tests.checkout import ROOT
from tests.unit.api_shim import looking_worker
from tests.unit.api_shim.until import until
from tests.unit.api_shim.worker_runs import (
    all_ended,
    row,
    submit,
)
from tests.unit.plugins.plugin_utils.registry import conftest as registry_fixtures
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

controller = registry_fixtures.controller


def runs(folder: Path) -> int:
    return len(list(folder.glob("run-*")))


def looked(folder: Path) -> Counter[str]:
    """How often each replica has looked for work."""
    return Counter(path.name.split("-")[1] for path in folder.glob("looked-*"))


def test_those_who_ask_two_replicas_at_once_share_a_run(controller: Controller, tmp_path: Path) -> None:
    """Whoever's worker takes the first one serves all that come before its run begins."""
    registry, folder = controller.registry, tmp_path / "runs"
    folder.mkdir()
    environment = {
        **os.environ,
        VARIABLE: registry.engine.url.render_as_string(hide_password=False),
        "PYTHONPATH": f"{ROOT / 'collections'}:{ROOT}",
    }
    command = [sys.executable, "-m", looking_worker.__name__, str(folder)]
    ids = [submit(registry, "drift")]
    with ExitStack() as stack:
        for _ in range(2):
            replica = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE)
            stack.callback(replica.wait, 60)
            assert replica.stdin is not None
            stack.callback(replica.stdin.close)
        until(lambda: len(looked(folder)) == 2 and runs(folder) == 1)
        ids += [submit(registry, "drift") for _ in range(5)]
        before = looked(folder)
        # Whoever was in the middle of it has looked once more.
        until(lambda: all(looked(folder)[pid] >= times + 2 for pid, times in before.items()))
        assert runs(folder) == 1
        (folder / "go").touch()
        until(all_ended(registry, ids, "failed"))
        assert runs(folder) == 1
    with registry.read() as session:
        answers = [looks.result_of(session, session.get_one(Operation, number)) for number in ids]
        nodes = [one.request["node"] for one in session.scalars(select(Operation)) if one.node_id is not None]
    assert answers[0] is not None
    assert [one["node"] for one in answers[0]["operations"]] == sorted(nodes)
    assert len(nodes) == 3
    assert answers == [answers[0]] * 6
    assert len({row(registry, number).run_id for number in ids}) == 1
