"""What was accepted is not accepted again: not after a restart, not after the clock was set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import CannotRemember, Replay

NOW = 1_700_000_000
WRITE = os.write


def signature(number: int) -> str:
    return f"{number:064x}"


def accept(what: Replay, number: int, when: int = NOW, now: int = NOW) -> bool:
    return what.accept(signature(number), str(when), now)


def test_the_second_time_is_refused(tmp_path: Path) -> None:
    what = Replay(str(tmp_path))
    assert accept(what, 1)
    assert accept(what, 2)
    assert not accept(what, 1)


@pytest.mark.parametrize("ahead", [-299, 0, 299])
def test_a_restart_forgets_nothing(tmp_path: Path, ahead: int) -> None:
    first = Replay(str(tmp_path))
    assert accept(first, 1, NOW + ahead)
    first.close()
    second = Replay(str(tmp_path))
    assert not accept(second, 1, NOW + ahead)
    assert accept(second, 2, NOW + ahead)


def test_a_line_cut_short_by_a_crash_costs_nothing_else(tmp_path: Path) -> None:
    first = Replay(str(tmp_path))
    assert accept(first, 1)
    first.close()
    with (tmp_path / "accepted").open("a") as file:
        file.write(f"{NOW} {signature(2)[:20]}")
    second = Replay(str(tmp_path))
    assert not accept(second, 1)
    assert accept(second, 2)
    second.close()
    assert not accept(Replay(str(tmp_path)), 2)


def test_what_is_forgotten_is_refused_by_its_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_REMEMBERED", 3)
    what = Replay(str(tmp_path))
    assert all(accept(what, number) for number in range(3))
    later = NOW + 301
    assert accept(what, 3, later, later)  # the others made room
    # The clock is set back, and what was forgotten would be timely again.
    assert not accept(what, 1, NOW, NOW)
    what.close()
    assert not accept(Replay(str(tmp_path)), 1, NOW, NOW)


def test_a_clock_that_was_set_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = (
        "the clock was set back: what was signed until 2023-11-14 22:13:20 UTC is refused, for it may have been "
        "accepted and forgotten. Set the clock right, or if it is: stop the agent, change its secrets, remove "
        f"{tmp_path}/accepted and start it again\n"
    )
    monkeypatch.setattr(replay, "MOST_REMEMBERED", 1)
    what = Replay(str(tmp_path))
    later = NOW + 301
    assert accept(what, 1)
    assert accept(what, 2, later, later)
    assert capsys.readouterr().err == ""
    assert not accept(what, 3)
    assert capsys.readouterr().err == told
    what.close()
    for now, expected in ((later, ""), (NOW + 299, told), (NOW - 86400, told)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        Replay(str(tmp_path)).close()
        assert capsys.readouterr().err == expected


def test_when_nothing_can_be_forgotten_nothing_more_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_REMEMBERED", 3)
    what = Replay(str(tmp_path))
    assert all(accept(what, number) for number in range(3))
    with pytest.raises(CannotRemember, match="more than 3"):
        accept(what, 3)
    assert not accept(what, 2)


def half(file: int, data: bytes) -> int:
    return WRITE(file, data[:10])


def fail(*_asked: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    "faults",
    [{"write": half}, {"write": half, "ftruncate": fail}, {"fdatasync": fail}],
    ids=["full", "full and not to be cut", "not on disk"],
)
def test_what_cannot_be_written_is_not_accepted_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: dict[str, Callable[..., object]]
) -> None:
    what = Replay(str(tmp_path))
    assert accept(what, 1)
    with monkeypatch.context() as patched:
        for name, fault in faults.items():
            patched.setattr(os, name, fault)
        with pytest.raises(CannotRemember, match="cannot be written"):
            accept(what, 2)
    # Until all of it has been written anew, nothing is accepted.
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        for number in (2, 3):
            with pytest.raises(CannotRemember, match="cannot be written: Input/output error"):
                accept(what, number)
        assert not accept(what, 1)
    (tmp_path / "accepted").write_text("spoilt")
    assert accept(what, 2)
    assert accept(what, 4)
    what.close()
    again = Replay(str(tmp_path))
    assert [accept(again, number) for number in (1, 2, 3, 4)] == [False, False, True, False]


def test_it_is_on_disk_before_it_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = Replay(str(tmp_path))
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _file: synced.append((tmp_path / "accepted").read_text()))
    assert accept(what, 1)
    assert signature(1) in synced[0]


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    first = Replay(str(tmp_path))
    with pytest.raises(CannotRemember, match="another agent"):
        Replay(str(tmp_path))
    first.close()
    Replay(str(tmp_path))


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    accept(Replay(str(tmp_path / "new")), 1)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotRemember) as caught:
        Replay(str(tmp_path / "file" / "state"))
    assert str(caught.value) == f"{tmp_path}/file/state cannot be used: Not a directory"
