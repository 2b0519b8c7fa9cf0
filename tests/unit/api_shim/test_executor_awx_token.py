"""The token of AWX: its rights, and that it goes nowhere else."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api_shim.executor import Ended, Run
from api_shim.executor_awx import AwxExecutor
from tests.unit.api_shim import awx_runs
from tests.unit.api_shim.awx_runs import JOB, LAUNCH, PACE, RUN, Execute, launches, no_one, settings
from tests.unit.api_shim.awx_stand_in import TOKEN, AwxStandIn, Fault, stand_in

awx = awx_runs.awx
template = awx_runs.template
execute = awx_runs.execute


@pytest.mark.usefixtures("template")
def test_a_wrong_token_names_its_setting_and_is_not_repeated(awx: AwxStandIn, execute: Execute) -> None:
    awx.token = "another"
    ended = execute()
    assert ended.status == "error"
    assert "VPNFLEET_AWX_TOKEN" in ended.message
    assert len(awx.requests) == 1


@pytest.mark.usefixtures("template")
def test_a_token_without_the_right_to_execute_is_told(awx: AwxStandIn, execute: Execute) -> None:
    awx.executable = False
    ended = execute()
    assert ended.status == "error"
    assert "VPNFLEET_AWX_TOKEN" in ended.message
    assert "Execute" in ended.message


@pytest.mark.usefixtures("template")
def test_a_token_that_is_revoked_while_the_job_runs_is_told(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [Fault("GET", JOB, status=401)]
    assert "VPNFLEET_AWX_TOKEN" in execute().message


@pytest.mark.usefixtures("template")
def test_the_token_follows_no_redirect(awx: AwxStandIn, execute: Execute) -> None:
    with stand_in() as elsewhere:
        awx.faults = [
            Fault("GET", "job_templates/", status=302, location=f"{elsewhere.url}/api/v2/job_templates/")
        ]
        ended = execute()
        assert ended.status == "error"
        assert "VPNFLEET_AWX_URL" in ended.message
        assert elsewhere.requests == []


@pytest.mark.usefixtures("template")
def test_links_in_answers_are_not_followed(awx: AwxStandIn, execute: Execute) -> None:
    with stand_in() as elsewhere:
        body = f'{{"results": [{{"id": 1}}], "next": "{elsewhere.url}/api/v2/jobs/?page=2"}}'
        awx.faults = [Fault("POST", LAUNCH, lost=True), Fault("GET", "jobs/", body=body)]
        assert execute().status == "successful"
        assert elsewhere.requests == []


@pytest.mark.usefixtures("template")
def test_the_token_is_in_no_message_and_no_log(
    awx: AwxStandIn, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for fault in (
        Fault("GET", "job_templates/", status=401),
        Fault("GET", "job_templates/", status=400),
        Fault("POST", LAUNCH, status=403),
        Fault("POST", LAUNCH, status=400),
        Fault("POST", LAUNCH, status=503, times=10),
        Fault("GET", JOB, status=401),
        Fault("GET", JOB, body='{"status": 1', times=10**6),
    ):
        awx.faults = [fault]
        said.append(execute().message)
    assert all(said)
    assert TOKEN not in "".join(said)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"awx_url": ""}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "ftp://awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "https://user:secret@awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_token": ""}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_token": f"{TOKEN}\n"}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_token": f"{TOKEN} é"}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_ca": Path("/nowhere/ca.pem")}, "VPNFLEET_AWX_CA"),
        ({"awx_ca": Path(__file__)}, "VPNFLEET_AWX_CA"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(awx: AwxStandIn, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        AwxExecutor(settings(awx, **change))
    assert TOKEN not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "awx.example.com")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path / "awx.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(pem)
    )
    return path


def test_awx_is_trusted_by_its_certificate_alone(awx: AwxStandIn, template: int, certificate: Path) -> None:
    assert template
    awx.serve_tls(certificate)
    for ca, status in ((None, "error"), (certificate, "successful")):
        executor = AwxExecutor(settings(awx, awx_ca=ca), PACE)
        ended = executor.execute(RUN, no_one, threading.Event())
        executor.close()
        assert ended.status == status
        assert ("certificate" in ended.message) == (status == "error")
        assert bool(awx.requests) == (status == "successful")


@pytest.mark.usefixtures("template")
def test_several_threads_run_at_once(awx: AwxStandIn, execute: Execute) -> None:
    ended: list[Ended] = []
    runs = [Run(str(number), "disconnect", (f"id-{number}",)) for number in range(8)]
    threads = [threading.Thread(target=lambda run=run: ended.append(execute(run))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [one.status for one in ended] == ["successful"] * 8
    assert sorted(one["extra_vars"]["operations"][0] for one in launches(awx)) == [
        f"id-{n}" for n in range(8)
    ]
