"""Who ends what a front has left, as the front's user: with real processes, and a list of them that the test writes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import end_front as module
from tests.unit.plugins.module_utils.agent.user_namespace import USER, ended, forked_as_root


def test_all_of_them_are_ended_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(module, "_processes", lambda: iter([os.getpid(), gone.pid, left.pid]))
    assert ended(forked_as_root(lambda: module.main([USER]))) == 0
    assert left.wait(20) == -signal.SIGKILL


def test_without_its_user_nothing_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_processes", lambda: pytest.fail("they are looked for"))
    assert module.main(["no-such-user"]) == 1
    assert capsys.readouterr().err == "whether a front is left is not known: there is no user no-such-user\n"


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("0::/system.slice/agent.service\n", [10, 11]),
        ("4:memory:/system.slice/agent.service\n1:name=systemd:/system.slice/agent.service\n", [20]),
        # Where both are, the one that is not mounted tells nothing.
        ("1:name=systemd:/system.slice/agent.service\n0::/elsewhere\n", [20]),
        ("0::/\n", []),
    ],
)
def test_they_are_looked_for_in_the_control_group_of_the_unit(
    groups: str, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, pids in (("2", "10\n11\n"), ("1", "20\n")):
        folder = tmp_path / version / "system.slice/agent.service"
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(pids)
        (tmp_path / version / "cgroup.procs").write_text("1\n")
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(module, "OWN_GROUPS", str(tmp_path / "cgroup"))
    monkeypatch.setattr(module, "_BY_SYSTEMD", {"": str(tmp_path / "2"), "name=systemd": str(tmp_path / "1")})
    assert list(module._processes()) == expected
