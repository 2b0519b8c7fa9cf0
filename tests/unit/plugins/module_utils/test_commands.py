"""Real processes, found in a folder of the test's own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands, source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import CommandFailed, WireGuardError
from tests.unit.plugins.module_utils.generated import private_key
from tests.unit.plugins.module_utils.stand_in_programs import program


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wg", "install wireguard-tools (the role vpnfleet.wireguard.node does it)"),
        ("ip", "install iproute2 (the role vpnfleet.wireguard.node does it)"),
        ("nft", "install it"),
    ],
)
def test_a_missing_program_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))
    for call in (lambda: commands.run([name, "show"]), lambda: commands.spawn_daemon([name])):
        with pytest.raises(WireGuardError) as caught:
            call()
        assert str(caught.value) == f"{name} is not on this node: {hint}"
    assert commands.find(name) is None


def test_output_and_exit_code(programs: Path) -> None:
    program(programs, "wg", 'printf "%s|" "$@"; cat; exit 3')
    result = commands.run(["wg", "show", "a b", "$(id)"], stdin="in", check=False)
    assert (result.stdout, result.returncode) == ("show|a b|$(id)|in", 3)


def test_a_reading_that_hangs_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before a change would be, and before anything is changed."""
    program(programs, "wg", "exec sleep 1000")
    program(programs, "ip", "exec sleep 1000")
    monkeypatch.setattr(source, "READING", 0.2)
    here = source.ThisNode()
    readings = {
        "ip": (here.addresses, lambda: here.routes("-4")),
        "wg": (lambda: here.dump("all"), lambda: here.peers("wg0")),
    }
    for name, asked in readings.items():
        for read in asked:
            with pytest.raises(WireGuardError) as caught:
                read()
            assert str(caught.value) == f"{name} did not end within 0.2 s"


def test_a_failure_names_the_command_and_its_message(programs: Path) -> None:
    program(programs, "wg", "echo 'Unable to modify interface: Operation not permitted' >&2; exit 1")
    with pytest.raises(CommandFailed) as caught:
        commands.run(["wg", "set", "wg0", "listen-port", "5"])
    assert str(caught.value) == (
        "wg set wg0 failed with exit code 1: Unable to modify interface: Operation not permitted"
    )
    assert caught.value.returncode == 1


def test_a_failure_without_words(programs: Path) -> None:
    program(programs, "wg", "exit 2")
    with pytest.raises(CommandFailed, match=r"^wg failed with exit code 2: no message$"):
        commands.run(["wg"])


def test_a_talkative_failure_is_cut_short(programs: Path) -> None:
    program(programs, "wg", "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1")
    with pytest.raises(CommandFailed) as caught:
        commands.run(["wg"])
    assert len(str(caught.value)) < 2500
    assert str(caught.value).endswith("the end")


def test_bytes_that_are_no_text_are_replaced(programs: Path) -> None:
    program(programs, "wg", r"printf 'a\377b'")
    assert commands.run(["wg"]).stdout == "a\ufffdb"


def test_a_hanging_program_is_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs, "wg", "exec sleep 60")
    monkeypatch.setattr(commands, "TIMEOUT", 0.2)
    with pytest.raises(WireGuardError, match=r"^wg did not end within 0\.2 s$"):
        commands.run(["wg"])


def test_programs_see_a_fixed_environment(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("A_SECRET", "x")
    program(programs, "wg", "env")
    seen = dict(line.split("=", 1) for line in commands.run(["wg"]).stdout.splitlines())
    assert "A_SECRET" not in seen
    assert seen["LC_ALL"] == "C"
    assert seen["WG_ENDPOINT_RESOLUTION_RETRIES"] == "1"


def test_a_secret_reaches_a_program_through_memory_alone(programs: Path) -> None:
    program(programs, "wg", 'cat "$3"; echo; echo "$@"; stat -L -c %h "$3"')
    with commands.in_memory(private_key(1)) as (path, descriptor):
        output = commands.run(["wg", "set", "private-key", path], descriptors=[descriptor]).stdout
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
    assert output.splitlines() == [private_key(1), f"set private-key {path}", "0"]  # no name on any disk
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_program_can_read_the_text_more_than_once(programs: Path) -> None:
    program(programs, "wg", 'cat "$1" "$1" | wc -c')
    with commands.in_memory("x" * 3_000_000) as (path, descriptor):
        assert commands.run(["wg", path], descriptors=[descriptor]).stdout.strip() == "6000000"


def test_no_descriptor_but_those_named_is_inherited(programs: Path) -> None:
    program(programs, "wg", "ls /proc/self/fd")
    with commands.in_memory("secret") as (_path, descriptor):
        assert str(descriptor) not in commands.run(["wg"]).stdout.split()


def test_a_hook_is_a_line_of_shell(programs: Path, tmp_path: Path) -> None:
    commands.run_hook(f"echo $((1 + 1)) > {tmp_path}/out; exit 0", check=True)
    assert (tmp_path / "out").read_text() == "2\n"
    assert programs == tmp_path


def test_a_failing_hook_is_told_when_it_matters() -> None:
    with pytest.raises(CommandFailed) as caught:
        commands.run_hook("echo 'no such chain' >&2; exit 4", check=True)
    assert str(caught.value).endswith("failed with exit code 4: no such chain")
    commands.run_hook("exit 4", check=False)


def test_a_hook_that_leaves_something_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    commands.run_hook(f"sleep 60 & echo $! > {tmp_path}/pid", check=True)
    os.kill(int((tmp_path / "pid").read_text()), 9)  # it is still there: else this raises


def test_a_hanging_hook_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "TIMEOUT", 0.2)
    with pytest.raises(WireGuardError, match=r"^the hook 'exec sleep 60' did not end within 0\.2 s$"):
        commands.run_hook("exec sleep 60", check=False)


def test_a_long_failing_hook_is_cut_short() -> None:
    with pytest.raises(CommandFailed) as caught:
        commands.run_hook(
            "head -c 100000 /dev/zero | tr '\\0' x >&2; : " + "x" * 50_000 + "; exit 1", check=True
        )
    assert len(str(caught.value)) < 2500


def test_a_daemon_that_fails_to_start_is_told(programs: Path) -> None:
    program(programs, "wireguard-go", "exit 1")
    with pytest.raises(CommandFailed, match=r"^wireguard-go wg0 failed with exit code 1: no message$"):
        commands.spawn_daemon(["wireguard-go", "wg0"])


def test_a_daemon_has_a_session_of_its_own_and_none_of_our_pipes(programs: Path, tmp_path: Path) -> None:
    program(
        programs, "wireguard-go", f"ls -l /proc/self/fd > {tmp_path}/fds; ps -o sid= -p $$ > {tmp_path}/sid"
    )
    commands.spawn_daemon(["wireguard-go", "wg0"])
    assert int((tmp_path / "sid").read_text()) != os.getsid(0)
    assert "pipe:" not in (tmp_path / "fds").read_text()


def in_memory_files() -> set[str]:
    """The open files of this process that exist in memory only."""
    names = (str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return {name for name in names if name.startswith("/memfd:std")}


def test_a_program_that_cannot_be_started_leaves_no_file_open(programs: Path) -> None:
    path = programs / "wg"
    path.write_bytes(b"\x7fELF, and no more")
    path.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        commands.Started(["wg", "show"])
    assert in_memory_files() == set()
    program(programs, "wg", "exit 0")
    started = commands.Started(["wg", "show"])
    assert len(in_memory_files()) == 2
    started.end()
    assert in_memory_files() == set()
