"""No secret in logs, in the arguments of processes, in what ansible-runner leaves behind, or in answers."""

from __future__ import annotations

import json
import tempfile
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


@pytest.mark.parametrize("fleet", ["postgresql"], indirect=True)
def test_no_secret_is_told(fleet: RegistryFleet, tmp_path: Path) -> None:
    preshared = preshared_key("secretive")
    answers: list[str] = []
    with served(fleet, tmp_path, wait_seconds="60", log_level="debug") as server:
        with server.client("ops") as client, watch_processes([preshared, server.key("ops")]) as watch:
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
                operations = [
                    json.dumps([one.request, one.result]) for one in session.scalars(select(Operation))
                ]
            assert kept
            answers.append(client.post("/remove_instances/", json={"body": {"instance": NAME}}).text)
        # While it runs: what ansible-runner keeps is in directories of its own.
        left = [
            path.read_text(encoding="utf-8", errors="replace")
            for folder in Path(tempfile.gettempdir()).glob("vpnfleet-runs-*")
            for path in folder.rglob("*")
            if path.is_file()
        ]
    assert watch.looks > 10
    assert watch.found == ()
    secrets = [preshared, *kept, server.key("ops"), fleet.variables["VPNFLEET_ENCRYPTION_KEY"]]
    for secret in secrets:
        assert secret not in server.said()
        assert not [one for one in answers if secret in one]
        assert not [one for one in left if secret in one]
        assert not [one for one in operations if secret in one]
