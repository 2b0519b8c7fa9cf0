"""`make serve`: what it prints works as it is printed, and nothing is left when it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.fleet import ROOT
from tests.lab.namespaces import namespaces_of

NAME = f"s{os.getpid()}"


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What it prints, and serve.json; ended by ^C."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        serve = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.serve",
                "--name",
                NAME,
                "--port",
                "0",
                "--directory",
                str(tmp_path),
            ],
            cwd=ROOT,
            # Whoever waits gets the result, however busy this machine is.
            env={**os.environ, "VPNFLEET_WAIT_SECONDS": "60"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 400
    while "lists all calls" not in output.read_text():
        assert serve.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    yield output.read_text(), json.loads((tmp_path / "serve.json").read_text(encoding="utf-8"))
    serve.send_signal(signal.SIGINT)
    assert serve.wait(180) == 0, output.read_text()
    assert namespaces_of(NAME) == []


def test_the_printed_lines_work(printed: tuple[str, dict[str, Any]]) -> None:
    text, told = printed
    again = subprocess.run(
        [sys.executable, "-m", "tests.serve", "--name", NAME],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (again.returncode, again.stdout) == (2, "")
    assert f"one is up already on the lab {NAME}" in again.stderr
    assert re.search(r"^  VPNFLEET_DATABASE_URL=\S+ python -m api_shim keys create mine", text, re.MULTILINE)
    for one in re.findall(r"^  (python -m tests.lab exec .*)$", text, re.MULTILINE):
        subprocess.run(["bash", "-c", one.replace("python", sys.executable, 1)], cwd=ROOT, check=True)
    commands = re.findall(r"^  (curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
    answers = [
        json.loads(subprocess.run(["bash", "-c", one], check=True, capture_output=True, text=True).stdout)
        for one in commands
    ]
    assert [sorted(one) for one in answers] == [
        ["instance_id", "message", "status"],
        ["data", "message", "status"],
    ]
    assert answers[0]["status"] == "success"
    assert answers[1]["data"]["summary"]["total_nodes"] == len(told["nodes"])

    # As the documents' own programs call, with another library.
    api_key, url = told["keys"]["billing"], told["url"]
    response = requests.post(
        f"{url}/api/disconnect_instance/",
        json={"email": told["customer"]},
        headers={"X-API-Key": api_key},
        timeout=90,
    )
    assert response.status_code == 200
    headers = {"x-api-key": api_key, "Content-Type": "application/json"}
    data = {"body": {"instance": told["customer"]}}
    response = requests.post(f"{url}/remove_instances/", json=data, headers=headers, timeout=90)
    assert (response.status_code, response.json()["status"]) == (200, "success")
