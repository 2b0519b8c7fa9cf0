"""Whatever is sent: an answer that the document tells of, and no 5xx. By schemathesis, with all of its checks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from api_shim.settings import Settings
from tests.unit.api_shim.edge import Edge

EXAMPLES = 15
#: What our own formats are: the document has no pattern for them.
FORMATS = """
import ipaddress
import schemathesis
from hypothesis import strategies as st

def networks(addresses, prefixes):
    return st.builds(
        lambda address, prefix: str(ipaddress.ip_network((address, prefix), strict=False)), addresses, prefixes
    )

ip4, ip6 = (lambda text: st.ip_addresses(network=text)), (lambda text: st.ip_addresses(network=text, v=6))
either = networks(ip4("0.0.0.0/0"), st.integers(0, 32)) | networks(ip6("::/0"), st.integers(0, 128))
schemathesis.openapi.format("ipv4-network", networks(ip4("10.0.0.0/8") | ip4("172.16.0.0/12"), st.integers(12, 30)))
schemathesis.openapi.format("ipv6-network", networks(ip6("fd00::/8") | ip6("2001:db8::/32"), st.integers(32, 64)))
schemathesis.openapi.format("network", either)
schemathesis.openapi.format("networks", st.lists(either, max_size=5).map(", ".join))
"""


@pytest.fixture
def settings() -> Settings:
    """Nobody carries anything out here: what is accepted stays recorded."""
    return Settings(
        wait_seconds=0,
        rate_limit_drift_node="",
        rate_limit_drift_all="",
        rate_limit_reconcile="",
        rate_limit_node_update="",
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)
def test_whatever_is_sent(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "formats.py").write_text(FORMATS, encoding="utf-8")
    # A key that was another call's is no mistake of the document.
    (tmp_path / "schemathesis.toml").write_text(
        'hooks = "formats.py"\n'
        "[checks.positive_data_acceptance]\n"
        'expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410", "422"]\n',
        encoding="utf-8",
    )
    with listening(edge) as url:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"),
                *("--url", url, "--checks", "all", "--phases", "examples,coverage,fuzzing"),
                # It looks at this machine, which may be at work on other tests.
                *("--suppress-health-check", "too_slow"),
                *("--max-examples", str(EXAMPLES), "--seed", "1", "--no-color", "--workers", "1"),
                *("--header", f"X-API-Key: {edge.keys['ops']}"),
                # It is endless while the operation is, and tested by itself.
                *("--exclude-operation-id", "follow_operation"),
                # It would call the hosts that are made up.
                *("--exclude-operation-id", "node_health"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
        )
    assert done.returncode == 0, done.stdout[-15000:] + done.stderr[-3000:]
    assert "passed" in done.stdout


@contextmanager
def listening(edge: Edge) -> Iterator[str]:
    """The application on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(edge.app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
