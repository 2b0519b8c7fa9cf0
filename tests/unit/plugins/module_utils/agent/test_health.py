"""A node whose wg fails is not healthy."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import health as module
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.health import health
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from tests.unit.plugins.module_utils.stand_in_programs import program


@pytest.fixture
def wg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wg that is found, to be written by the test."""
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tmp_path}:{commands.SEARCH_PATH}")
    return tmp_path / "wg"


def write(wg: Path, script: str) -> None:
    program(wg.parent, wg.name, script)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Unable to list interfaces: Protocol not supported' >&2; exit 1",
         "wg show all listen-port failed with exit code 1: Unable to list interfaces: Protocol not supported"),
        ("[ $3 != latest-handshakes ] || exit 127",
         "wg show all latest-handshakes failed with exit code 127: no message"),
    ],
)  # fmt: skip
def test_a_wg_that_fails_is_told(wg: Path, script: str, message: str) -> None:
    write(wg, script)
    with pytest.raises(WireGuardError) as caught:
        health()
    assert str(caught.value) == message


def test_a_wg_that_hangs_is_told_soon(wg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(wg, "exec sleep 60")
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with pytest.raises(WireGuardError, match=r"^wg did not end within 0\.2 s$"):
        health()


def test_an_interface_that_cannot_be_read_hides_no_other(wg: Path) -> None:
    write(
        wg,
        """case $3 in
listen-port) printf 'wg1\\t51820\\n' ;;
latest-handshakes) printf 'wg1\\tkey1\\t0\\nwg1\\tkey2\\t1700000000\\n' ;;
*) exit 3 ;;
esac
echo 'Unable to access interface wg0: Connection refused' >&2; exit 1""",
    )
    found = health()
    assert found["status"] == "ok"
    assert [(one["name"], one["peers"], one["latest_handshake"]) for one in found["interfaces"]] == [
        ("wg1", 2, 1_700_000_000)
    ]
    assert found["versions"]["wireguard_tools"] == "unknown"


def test_what_wg_does_not_say_is_not_known(wg: Path) -> None:
    write(
        wg,
        """case $3 in
listen-port) printf 'lo\\t(none)\\nwg7\\t51820\\n' ;;
latest-handshakes) printf 'wg8\\tkey1\\t5\\nwg7\\tkey1\\n\\nwg7\\tkey2\\t0\\n' ;;
*) echo 'wireguard-tools, of no version' ;;
esac""",
    )
    found = health()
    flags = int(Path("/sys/class/net/lo/flags").read_text(), 16)
    assert [(one["name"], one["up"], one["listen_port"], one["peers"]) for one in found["interfaces"]] == [
        ("lo", bool(flags & 1), None, 0),
        ("wg7", False, 51820, 1),
    ]
    assert found["versions"]["wireguard_tools"] == "unknown"


@pytest.mark.parametrize(("text", "expected"), [("1.0.0\n", "1.0.0"), ("1" * 100, "1" * 40), (None, None)])
def test_the_kernel_s_own_is_told_where_there_is_one(
    text: str | None, expected: str | None, wg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(wg, "echo v1.2")
    monkeypatch.setattr(module, "MODULE", str(tmp_path / "version"))
    if text is not None:
        (tmp_path / "version").write_text(text)
    versions = health()["versions"]
    assert (versions["wireguard_module"], versions["wireguard_tools"]) == (expected, "1.2")
