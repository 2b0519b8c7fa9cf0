"""How the agent is started, and what is told when it cannot be."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.run import address, main
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.version import VERSION

PACKAGE = "ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent"


@pytest.fixture(autouse=True)
def _mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:8443", ("192.0.2.1", 8443)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
        ("[::]:65535", ("::", 65535)),
        (":8443", ("", 8443)),
    ],
)
def test_an_address_has_a_port(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8443", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "a:65536", "::1:80", "a:-1"]
)
def test_what_has_none_is_no_address(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"^is not ADDRESS:PORT$"):
        address(text)


@pytest.mark.parametrize(
    ("module", "argument", "expected"),
    [
        ("run", "--version", (0, f"{VERSION}\n", "")),
        ("end_front", "root", (1, "", "whether a front is left is not known: root is root\n")),
    ],
)
def test_each_program_is_a_module(module: str, argument: str, expected: tuple[int, str, str]) -> None:
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    name = f"{PACKAGE}.{module}"
    found = subprocess.run(
        [sys.executable, "-m", name, argument], env=path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == expected


@pytest.mark.parametrize("given", ["--certificate", "--key"])
def test_a_certificate_needs_its_key(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--listen", "127.0.0.1:1", "--secrets", "x", "--state-dir", "y", given, "z"])
    assert ended.value.code == 2
    assert "--certificate and --key go together" in capsys.readouterr().err


def test_an_agent_that_cannot_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = tmp_path / "secrets"
    assert main(["--listen", "127.0.0.1:1", "--secrets", str(secrets), "--state-dir", str(tmp_path)]) == 2
    told = f"the agent cannot start: {secrets} cannot be read: No such file or directory\n"
    assert capsys.readouterr().err == told
    assert list(tmp_path.iterdir()) == []
