"""All commands at once read what one after the other reads, and none of them is left running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.at_once import read_at_once
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    CommandFailed,
    InvalidInput,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import read_node
from tests.unit.plugins.module_utils.printed import ADDRESSES, DEVICE, ROUTES_4, ROUTES_6
from tests.unit.plugins.module_utils.stand_in_programs import program


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ip and a wg that answer as a node's."""
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, answer in (("addresses", ADDRESSES), ("-4", ROUTES_4), ("-6", ROUTES_6)):
        (tmp_path / name).write_text(json.dumps(answer))
    (tmp_path / "dump").write_text(DEVICE)
    ip = f'echo $$ >>{tmp_path}/pids; case $1 in -json) cat {tmp_path}/addresses ;; *) cat "{tmp_path}/$1" ;; esac'
    program(tmp_path, "ip", ip)
    wg = f"case $2 in all) sed 's/^/wg0\\t/' {tmp_path}/dump ;; *) cat {tmp_path}/dump ;; esac"
    program(tmp_path, "wg", f"echo $$ >>{tmp_path}/pids; {wg}")
    return tmp_path


@pytest.mark.parametrize("names", [["wg0"], ["wg0", "wg1"], ["wg9"], ["wg0", "wg1", "wg2", "wg3"]])
def test_it_reads_the_same(programs: Path, names: list[str]) -> None:  # noqa: ARG001
    done: list[str] = []
    found = read_at_once(names, lambda: done.append("meanwhile"))
    plain = read_node(names)
    assert done == ["meanwhile"]
    assert (found.links, found.devices, found.routes, found.kinds, found.unreadable) == (
        plain.links, plain.devices, plain.routes, plain.kinds, plain.unreadable,
    )  # fmt: skip


def test_what_is_raised_meanwhile_ends_the_commands(programs: Path) -> None:
    program(programs, "wg", f"echo $$ >>{programs}/pids; exec sleep 300")

    def wrong() -> None:
        raise InvalidInput("config", "is wrong")

    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidInput, match="is wrong"):
        read_at_once(["wg0"], wrong)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for pid in (programs / "pids").read_text().split() if (programs / "pids").exists() else ():
        assert not Path("/proc", pid).exists()


def test_a_command_that_fails_says_why(programs: Path) -> None:
    program(programs, "ip", "echo 'out of luck' >&2; exit 3")
    with pytest.raises(CommandFailed, match="out of luck"):
        read_at_once(["wg0"])


def test_one_that_hangs_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs, "wg", "exec sleep 300")
    monkeypatch.setattr(commands, "TIMEOUT", 0.2)
    with pytest.raises(WireGuardError, match=r"wg did not end within 0\.2 s"):
        read_at_once(["wg0"])


def test_an_answer_of_any_length_needs_no_reader(programs: Path) -> None:
    program(programs, "wg", "head -c 3000000 /dev/zero | tr '\\0' x; echo told >&2; exit 4")
    result = commands.Started(["wg", "show"]).result()
    assert (len(result.stdout), result.stderr, result.returncode) == (3_000_000, "told\n", 4)
