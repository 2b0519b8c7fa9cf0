from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import traces


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "units"
    monkeypatch.setattr(traces, "UNIT_FOLDERS", (str(folder), str(tmp_path / "no such folder")))
    monkeypatch.setattr(traces, "DEFAULT_CONFIG_DIR", str(tmp_path / "wireguard"))
    return folder


def enable(units: Path, name: str, target: str = "multi-user.target.wants") -> None:
    (units / target).mkdir(parents=True, exist_ok=True)
    (units / target / name).symlink_to("/lib/systemd/system/wg-quick@.service")  # wherever that is


def test_files_and_units_tell_of_interfaces(units: Path, tmp_path: Path) -> None:
    files = tmp_path / "wireguard"
    files.mkdir()
    for name in (
        "wg7.conf",
        "wg8.conf",
        "vpn.conf",
        ".wg9.conf.vpnfleet-new",
        "wg10.conf.bak",
        "a name.conf",
    ):
        (files / name).touch()
    enable(units, "wg-quick@wg8.service")
    enable(units, "wg-quick@wg11.service", "network.target.wants")
    enable(units, "ssh.service")
    enable(units, "wg-quick@a name.service")
    assert traces.traces(str(files)) == {
        "wg7": "file",
        "wg8": "enabled at boot",
        "wg11": "enabled at boot",
        "vpn": "file",
    }


def test_units_have_no_part_in_another_folder(units: Path, tmp_path: Path) -> None:
    enable(units, "wg-quick@wg8.service")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "wg1.conf").touch()
    assert traces.traces(str(tmp_path / "elsewhere")) == {"wg1": "file"}


def test_a_node_without_any(units: Path, tmp_path: Path) -> None:
    del units
    assert traces.traces(str(tmp_path / "wireguard")) == {}
