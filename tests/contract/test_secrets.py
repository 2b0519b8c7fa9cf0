"""No secret in logs, in the arguments of processes, in what ansible-runner leaves behind, or in answers."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Operation,
    Peer,
)
from tests.contract.server import served
from tests.e2e import registry_fleet
from tests.e2e.process_watch import watch_processes
from tests.e2e.registry_fleet import RegistryFleet
from tests.e2e.wireguard_keys import preshared_key

lab = registry_fleet.lab
fleet = registry_fleet.fleet

NAME = "secretive@example.com"


@contextmanager
def watch_files(pattern: str) -> Iterator[dict[Path, bytes]]:
    """All that is seen in the files of these directories of the temporary one, while this runs."""
    seen: dict[Path, bytes] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for top in Path(tempfile.gettempdir()).glob(pattern):
                # Not by rglob: what has just gone would end it.
                for path in [Path(folder) / name for folder, _, names in os.walk(top) for name in names]:
                    with suppress(OSError):
                        told = path.read_bytes() if path.is_file() else b""
                        before = seen.setdefault(path, b"")
                        if told not in before:
                            seen[path] = before + told

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            over.set()
        looking.result()


@pytest.mark.parametrize("fleet", ["postgresql"], indirect=True)
def test_no_secret_is_told(fleet: RegistryFleet, tmp_path: Path) -> None:
    preshared = preshared_key("secretive")
    answers: list[str] = []
    with (
        served(fleet, tmp_path, wait_seconds="60", log_level="debug") as server,
        server.client("ops") as client,
        watch_processes([preshared, server.key("ops")]) as watch,
        watch_files("vpnfleet-runs-*") as files,
    ):
        peers = [{"name": "phone", "preshared_key": preshared}]
        made = client.post("/api/instances", json={"name": NAME, "node": "node1", "peers": peers})
        assert made.status_code == 201, made.text
        answers.append(made.text)
        wrong = [{"name": "phone", "preshared_key": preshared[:-2]}]
        for body in ({"name": NAME, "peers": wrong}, {"name": NAME, "peers": peers, "node": "node2"}):
            refused = client.post("/api/instances", json=body)
            assert refused.status_code in (400, 409), refused.text
            answers.append(refused.text)
        answers.append(client.get(f"/api/instances/{NAME}").text)
        answers.append(client.get("/metrics").text)
        with fleet.read() as session:
            kept = [
                secret
                for secret in (
                    *session.scalars(select(Instance.private_key)),
                    *session.scalars(select(Peer.private_key)),
                )
                if secret
            ]
            operations = [json.dumps([one.request, one.result]) for one in session.scalars(select(Operation))]
        assert kept
        answers.append(client.post("/remove_instances/", json={"body": {"instance": NAME}}).text)
    assert watch.looks > 10
    assert watch.found == ()
    # What a run tells ansible-runner, and what that keeps of it: events, and what was published.
    assert {"extravars", "command"} <= {path.name for path in files}
    assert any(path.parent.name == "job_events" for path in files)
    secrets = [preshared, *kept, server.key("ops"), fleet.variables["VPNFLEET_ENCRYPTION_KEY"]]
    for secret in secrets:
        assert secret not in server.said()
        assert not [one for one in answers if secret in one]
        assert not [path for path, told in files.items() if secret.encode() in told]
        assert not [one for one in operations if secret in one]
