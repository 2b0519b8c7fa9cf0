"""What was accepted is not accepted again: not after a restart, not after the clock was set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import replay
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import CannotRemember, Replay

NOW = 1_700_000_000


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


def test_when_nothing_can_be_forgotten_nothing_more_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_REMEMBERED", 3)
    what = Replay(str(tmp_path))
    assert all(accept(what, number) for number in range(3))
    with pytest.raises(CannotRemember, match="more than 3"):
        accept(what, 3)
    assert not accept(what, 2)


def test_a_full_disk_accepts_nothing_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = Replay(str(tmp_path))
    assert accept(what, 1)
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]))
    with pytest.raises(CannotRemember, match="cannot be written"):
        accept(what, 2)
    monkeypatch.undo()
    assert accept(what, 2)
    what.close()
    again = Replay(str(tmp_path))
    assert not accept(again, 1)
    assert not accept(again, 2)


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
