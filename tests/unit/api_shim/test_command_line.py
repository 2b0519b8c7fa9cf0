"""`python -m api_shim`, as it is called."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
from api_shim.__main__ import main
from tests.checkout import ROOT


@pytest.fixture
def url(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty registry, in the environment."""
    monkeypatch.setenv("VPNFLEET_DATABASE_URL", registry_url)
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    monkeypatch.setenv("VPNFLEET_ACTOR", "carol")
    return registry_url


def test_keys_are_made_listed_and_revoked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["keys", *argv])
        except SystemExit as ended:
            code = int(str(ended.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    assert "no keys yet" in run("list")[1]
    code, key, _ = run(
        "create", "billing-1", "--scope", "billing", "--scope", "read", "--expires", "2099-01-31"
    )
    assert code == 0
    assert re.fullmatch(r"vpf_[A-Za-z0-9_-]{43}\n", key)
    assert run("create", "ops", "--scope", "ops", "--expires-in-days", "5")[0] == 0
    code, listed, _ = run("list")
    lines = [re.split(r"  +", line) for line in listed.splitlines()]
    assert lines[0] == ["NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE"]
    assert (lines[1][0], lines[1][1], lines[1][3:]) == (
        "billing-1",
        "billing,read",
        ["2099-01-31 23:59", "never", "active"],
    )
    assert run("create", "ops", "--scope", "ops")[0] == 1
    assert run("revoke", "ops") == (0, "ops is revoked\n", "")
    assert run("revoke", "ops") == (0, "ops was revoked before\n", "")
    code, _, error = run("revoke", "nobody")
    assert (code, "keys list" in error) == (1, True)
    assert run("create", "ops", "--scope", "ops")[0] == 1
    assert run("create", "a b; id", "--scope", "ops")[0] == 1
    for wrong in (
        ["create", "x"],
        ["create", "x", "--scope", "root"],
        ["create", "x", "--scope", "ops", "--expires", "2020-01-01"],
        ["create", "x", "--scope", "ops", "--expires", "tomorrow"],
        ["create", "x", "--scope", "ops", "--expires-in-days", "0"],
        ["create", "x", "--scope", "ops", "--expires-in-days", "1", "--expires", "2099-01-01"],
        [],
        ["burn"],
    ):
        assert run(*wrong)[0] == 2
    assert run("list")[1].count("\n") == 3
    registry = open_registry(url)
    with registry.read() as session:
        audit = [
            (row.actor, row.action, row.subject) for row in session.query(AuditEntry).order_by(AuditEntry.id)
        ]
        assert key.strip() not in str([row.details for row in session.query(AuditEntry)])
    registry.close()
    assert audit == [
        ("carol", "api key created", "billing-1"),
        ("carol", "api key created", "ops"),
        ("carol", "api key revoked", "ops"),
    ]


def command(*argv: str, **variables: str) -> subprocess.Popen[str]:
    # Without PYTHONPATH: it finds the collection by itself.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "api_shim", *argv],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def served(url: str) -> Iterator[subprocess.Popen[str]]:  # noqa: ARG001
    process = command("serve", VPNFLEET_PORT="0")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10)


def test_it_serves_until_it_is_told_to_stop(served: subprocess.Popen[str]) -> None:
    made = command("keys", "create", "x", "--scope", "ops")
    key = made.communicate(timeout=30)[0].strip()
    assert served.stderr is not None
    line = json.loads(served.stderr.readline())
    assert line["event"] == "listening"
    with httpx.Client(base_url=line["url"], headers={"X-API-Key": key}) as client:
        assert client.get("/").json() == {"msg": "VPN API is running"}
        answer = client.get("/api/nodes/")
        assert answer.status_code == 200
        assert "server" not in answer.headers
        answer = client.head("/api/nodes")
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.post("/api/nodes", content=(b" " * 65536 for _ in range(20))).status_code == 413
        port = line["url"].rpartition(":")[2]
        taken = command("serve", VPNFLEET_PORT=port)
        _, error = taken.communicate(timeout=30)
        assert taken.returncode == 1
        assert error.count("\n") == 1
        assert f"cannot listen on 127.0.0.1 port {port}" in error
    served.send_signal(signal.SIGTERM)
    out, error = served.communicate(timeout=20)
    assert (served.returncode, out) == (0, "")
    assert key not in error
    assert "Traceback" not in error
    assert '"error"' not in error


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    cases = [
        ({"VPNFLEET_PORT": "99999"}, 2, "VPNFLEET_PORT: "),
        ({"VPNFLEET_RATE_LIMIT_RECONCILE": "often"}, 2, "VPNFLEET_RATE_LIMIT_RECONCILE: is no limit such as"),
        ({"VPNFLEET_DATABASE_URL": "mysql://u:hunter2@h/d"}, 1, "VPNFLEET_DATABASE_URL: "),
        ({"VPNFLEET_DATABASE_URL": f"sqlite:///{tmp_path}/none.db"}, 1, "there is no registry at"),
        (
            {
                "VPNFLEET_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d",
                secrets.VARIABLE: Fernet.generate_key().decode(),
            },
            1,
            "the registry (",
        ),
    ]
    started = [(command("serve", **variables), code, text) for variables, code, text in cases]
    for process, code, text in started:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, ""), error
        assert error.count("\n") == 1, error
        assert f"error: {text}" in error
        assert "hunter2" not in error
    assert not (tmp_path / "none.db").exists()
