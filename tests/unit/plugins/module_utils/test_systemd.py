"""What systemd is asked and told, by a stand-in for systemctl."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import systemd
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Unit
from tests.unit.plugins.module_utils import stand_in_programs
from tests.unit.plugins.module_utils.stand_in_programs import StandIns

stand_ins = stand_in_programs.stand_ins

UNIT = "wg-quick@wg0.service"
SHOWN = """\
Id=wg-quick@wg0.service
ActiveState=active
UnitFileState=enabled

Id=wg-quick@wg1.service
ActiveState=activating
UnitFileState=enabled-runtime

Id=wg-quick@wg2.service
ActiveState=failed
UnitFileState=disabled

"""
STATES = {
    "wg0": Unit(True, True),
    "wg1": Unit(True, True),
    "wg2": Unit(False, False),
    "wg9": Unit(False, False),
}


def test_units_are_read_by_one_command(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    (stand_ins.root / "shown").write_text(SHOWN)
    stand_ins.with_systemd(monkeypatch, f"exec /bin/cat {stand_ins.root}/shown")
    assert systemd.read_units(list(STATES)) == STATES
    (call,) = stand_ins.calls()
    assert call == "systemctl show --property=Id,ActiveState,UnitFileState -- " + " ".join(
        f"wg-quick@{name}.service" for name in STATES
    )


def test_a_reading_that_fails_does_not_pass_for_units_that_are_off(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.with_systemd(monkeypatch, "echo 'Failed to connect to bus' >&2; exit 1")
    with pytest.raises(CommandFailed, match="Failed to connect to bus"):
        systemd.read_units(["wg0"])


def test_units_have_no_part_without_systemd_or_in_another_folder(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.with_systemd(monkeypatch)
    assert systemd.runs()
    assert systemd.read_units([]) == {}
    assert systemd.read_units(["wg0"], "/srv/wireguard") == {"wg0": None}
    (stand_ins.folder / "systemctl").unlink()
    assert not systemd.runs()
    assert systemd.read_units(["wg0"]) == {"wg0": None}
    stand_ins.program("systemctl")
    monkeypatch.setattr(systemd, "RUNTIME", str(stand_ins.root / "nowhere"))
    assert not systemd.runs()
    assert systemd.read_units(["wg0"]) == {"wg0": None}
    assert stand_ins.calls() == []


@pytest.mark.parametrize(("enabled", "verb"), [(True, "enable"), (False, "disable")])
def test_a_unit_is_enabled_and_disabled(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, enabled: bool, verb: str
) -> None:
    stand_ins.with_systemd(monkeypatch)
    systemd.enable("wg0", enabled)
    assert stand_ins.calls() == [f"systemctl {verb} --quiet {UNIT}"]


def test_a_start_that_succeeds_asks_no_further(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.with_systemd(monkeypatch)
    systemd.start("wg0")
    assert stand_ins.calls() == [f"systemctl start {UNIT}"]


def test_a_start_that_fails_tells_what_wg_quick_wrote(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systemctl itself says, that the journal has more, helps nobody who cannot look there."""
    stand_ins.with_systemd(
        monkeypatch, 'test "$1" != start || { echo "See journalctl -xeu." >&2; exit 3; }; exit 1'
    )
    stand_ins.program("journalctl", "echo 'RTNETLINK answers: Address already in use'")
    with pytest.raises(CommandFailed) as caught:
        systemd.start("wg0")
    assert str(caught.value) == (
        f"systemctl start {UNIT} failed with exit code 3: RTNETLINK answers: Address already in use"
    )
    assert caught.value.returncode == 3
    assert stand_ins.calls() == [
        f"systemctl start {UNIT}",
        f"journalctl --unit {UNIT} --lines=5 --no-pager --output=cat",
        f"systemctl reset-failed {UNIT}",
    ]


@pytest.mark.parametrize("code", [0, 1])
def test_a_stop_leaves_no_failed_unit_however_it_ends(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    stand_ins.with_systemd(monkeypatch, f"exit {code}")
    systemd.stop("wg0")
    assert stand_ins.calls() == [f"systemctl stop {UNIT}", f"systemctl reset-failed {UNIT}"]


# Notes what stands in the drop-in when systemd reads it, and when the unit is started.
LOOK = 'echo "$1 $(test -f {0} && echo with || echo without)" >> {1}; test ! -f {0} || /bin/cat {0} > {2}\n'


@pytest.mark.parametrize("code", [0, 5])
def test_a_unit_is_adopted_by_a_drop_in_that_is_gone_afterwards(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    drop_in = stand_ins.root / "RUNTIME" / f"{UNIT}.d" / "adopt.conf"
    seen, text = stand_ins.root / "seen", stand_ins.root / "text"
    stand_ins.with_systemd(
        monkeypatch, LOOK.format(drop_in, seen, text) + f'test "$1" != start || exit {code}'
    )
    if code:
        with pytest.raises(CommandFailed, match=f"failed with exit code {code}"):
            systemd.adopt("wg0")
    else:
        systemd.adopt("wg0")
    assert stand_ins.calls() == [
        "systemctl daemon-reload",
        f"systemctl start {UNIT}",
        "systemctl daemon-reload",
    ]
    assert seen.read_text().splitlines() == ["daemon-reload with", "start with", "daemon-reload without"]
    # The first line takes the unit's own command away, the second leaves an interface alone that is there.
    service, nothing, command = text.read_text().splitlines()
    assert (service, nothing) == ("[Service]", "ExecStart=")
    assert "ip link show dev %i" in command
    assert command.endswith("|| exec wg-quick up %i'")
    assert list((stand_ins.root / "RUNTIME").iterdir()) == []


def test_drop_ins_of_an_interface_that_is_gone_are_removed_and_no_others(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.with_systemd(monkeypatch)
    ours = [Path(folder) / f"{UNIT}.d" for folder in (systemd.FOR_GOOD, systemd.RUNTIME)]
    others = [Path(folder) / "wg-quick@wg1.service.d" for folder in (systemd.FOR_GOOD, systemd.RUNTIME)]
    for folder in (*ours, *others):
        folder.mkdir()
        (folder / "any.conf").write_text("[Service]\n")
    systemd.forget("wg0")
    assert [folder.exists() for folder in (*ours, *others)] == [False, False, True, True]
    assert stand_ins.calls() == ["systemctl daemon-reload"] * 2
    systemd.forget("wg0")
    assert stand_ins.calls() == []
