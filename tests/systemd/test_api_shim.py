"""playbooks/api_shim.yml on a Debian host with systemd: PostgreSQL, the server, nginx; and a node that it runs."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.lab.fleet import ROOT
from tests.systemd.api_host import ensure_api_image, ensure_wheels
from tests.systemd.command import execute
from tests.systemd.node import NodeFactory, SystemdNode

SERVICE = "vpnfleet-api.service"
CUSTOMER = "alice@example.com"
TOKEN = "awx-token-that-nobody-may-see"


@dataclass
class Deployment:
    """A host on which the playbook has run, and the node that it is to run."""

    host: SystemdNode
    node: SystemdNode
    folder: Path
    known_hosts: list[str]
    told: list[str] = field(default_factory=list)
    api_key: str = ""

    def play(self, *options: str, good: bool = True, **variables: Any) -> int:
        """Run the playbook; how many tasks changed something. What it prints is kept."""
        inventory = json.loads(self.host.inventory.read_text(encoding="utf-8"))
        given = {
            "api_shim_wheels": str(ensure_wheels()),
            "api_shim_server_names": ["api.example.com", self.host.address],
            "api_shim_known_hosts": self.known_hosts,
            "api_shim_settings": {"wait_seconds": 60},
            **variables,
        }
        inventory_file, given_file = self.folder / "inventory.json", self.folder / "variables.json"
        inventory_file.write_text(json.dumps({"api": inventory["nodes"]}), encoding="utf-8")
        given_file.write_text(json.dumps(given), encoding="utf-8")
        result = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "ansible",
                    "playbook",
                    "-i",
                    str(inventory_file),
                    "-e",
                    f"@{given_file}",
                ),
                *(*options, str(ROOT / "playbooks" / "api_shim.yml")),
            ],
            env=self.host.ansible_env(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.told.append(result.stdout + result.stderr)
        assert (result.returncode == 0) == good, self.told[-1][-6000:]
        recap = re.search(rf"^{self.host.name} .*changed=(\d+)", result.stdout, re.M)
        assert recap is not None
        return int(recap.group(1))

    def client(self, *, key: bool = True, **options: Any) -> httpx.Client:
        """A client that trusts the made certificate alone."""
        trust = ssl.create_default_context(cadata=self.host.read("/etc/vpnfleet/tls/api.crt"))
        headers = {"X-API-Key": self.api_key} if key else {}
        return httpx.Client(
            base_url=f"https://{self.host.address}", verify=trust, headers=headers, timeout=120, **options
        )

    def property(self, name: str) -> str:
        """What systemd says of the service."""
        return self.host.run(["systemctl", "show", "--value", f"--property={name}", SERVICE]).stdout.strip()

    def wait_until_ready(self) -> None:
        """Wait until it can serve."""
        deadline = time.monotonic() + 180
        while True:
            with self.client(key=False) as client:
                try:
                    answer = client.get("/readyz")
                except httpx.TransportError as error:
                    told = str(error)
                else:
                    if answer.status_code == 200:
                        return
                    told = answer.text
            assert time.monotonic() < deadline, told
            time.sleep(0.5)


@pytest.fixture(scope="module")
def api(systemd_nodes: NodeFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    host = systemd_nodes("api-host", ensure_api_image())
    node = systemd_nodes("api-node")
    known = [line for line in host.known_hosts().splitlines() if line.split()[0] == node.address]
    deployment = Deployment(host, node, tmp_path_factory.mktemp("api"), known)
    # There is no way to a mirror: apt's lists are as new as they get.
    host.run(["touch", "/var/lib/apt/lists"])
    assert deployment.play("--check") == 0
    assert "Nothing is deployed on this host yet" in deployment.told[-1]
    assert deployment.play("-vvv", "--diff") > 0
    made = host.run(["/usr/local/sbin/vpnfleet-api", "keys", "create", "test", "--scope", "ops"])
    deployment.api_key = made.stdout.strip()
    assert deployment.api_key.startswith("vpf_")
    public = host.read("/var/lib/vpnfleet/.ssh/id_ed25519.pub")
    assert " ".join(public.split()[:2]) in "".join(deployment.told[-1].split("\n")).replace("    ", " ")
    node.run(["sh", "-c", "cat >> /root/.ssh/authorized_keys"], input=public)
    yield deployment
    host.remove()
    node.remove()


def secrets(api: Deployment) -> list[str]:
    """All that nobody may see."""
    key = api.host.read("/etc/vpnfleet/encryption_key.env").strip().split("=", 1)[1]
    private = "".join(api.host.read("/var/lib/vpnfleet/.ssh/id_ed25519").splitlines()[1:-1])
    tls = "".join(api.host.read("/etc/vpnfleet/tls/api.key").splitlines()[1:-1])
    assert Fernet(key)
    return [key, private[-60:], tls[-60:], *([api.api_key] if api.api_key else [])]


def test_it_is_served_over_tls(api: Deployment) -> None:
    with api.client(key=False) as client:
        root = client.get("/", headers={"X-Request-ID": "asked-by-the-test"})
        assert (root.status_code, root.json()) == (200, {"msg": "VPN API is running"})
        assert root.headers["x-request-id"] == "asked-by-the-test"
        assert root.headers["strict-transport-security"].startswith("max-age=")
        assert root.headers["server"] == "nginx"
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ok"}
        refused = client.get("/api/nodes")
        assert refused.status_code == 401
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics/").status_code in (403, 404)
    plain = httpx.get(f"http://{api.host.address}/api/nodes?limit=1")
    assert plain.status_code == 308
    assert plain.headers["location"] == f"https://{api.host.address}/api/nodes?limit=1"
    # The server itself cannot be reached from outside, and its numbers from the host can.
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{api.host.address}:8080/")
    read = "import ssl,urllib.request as u;c=ssl._create_unverified_context();print(u.urlopen('https://127.0.0.1/metrics',context=c).read().decode())"
    assert "vpnfleet_" in api.host.run(["python3", "-c", read]).stdout


def test_errors_have_their_form(api: Deployment) -> None:
    with api.client() as client:
        headers = {"Content-Type": "application/json"}
        servers = client.post("/api/instances", content=b"x" * 1_500_000, headers=headers)
        assert servers.status_code == 413
        assert servers.json()["detail"] == "The body is longer than 1048576 bytes"
        for path, field_ in {
            "/api/instances": "detail",
            "/api/nodes": "message",
            "/api/transfer_instance/": "error",
        }.items():
            nginx = client.post(path, content=b"x" * 3_000_000, headers=headers)
            assert nginx.status_code == 413
            assert nginx.json()[field_] == "The body is longer than 1048576 bytes"
            wanted = "application/problem+json" if field_ == "detail" else "application/json"
            assert nginx.headers["content-type"] == wanted
            assert len(nginx.headers["x-request-id"]) == 32
            assert (
                nginx.json().get("request_id", nginx.headers["x-request-id"]) == nginx.headers["x-request-id"]
            )
        api.host.run(["systemctl", "stop", SERVICE])
        try:
            away = client.get("/api/nodes")
        finally:
            api.host.run(["systemctl", "start", SERVICE])
        assert away.status_code == 503
        assert away.json()["status"] is False
        assert away.headers["retry-after"] == "5"
        assert away.headers["strict-transport-security"]
    api.wait_until_ready()


def test_a_node_is_run_from_here(api: Deployment) -> None:
    with api.client() as client:
        node = {
            "name": "node.example.com",
            "ansible_host": api.node.address,
            "ansible_user": "root",
            "endpoint": api.node.address,
            "ip_pool_cidr": "10.88.0.0/16",
        }
        made = client.post("/api/nodes", json=node)
        assert made.status_code == 201, made.text

        told = client.post("/api/instances", json={"name": CUSTOMER, "peers": [{"name": "phone"}]})
        assert told.status_code == 201, told.text + log(api)
        interface = told.json()["interface"]
        assert api.node.run(["wg", "show", interface]).stdout.count("peer:") == 1
        assert api.node.run(["systemctl", "is-enabled", f"wg-quick@{interface}"]).stdout == "enabled\n"

        email = {"email": CUSTOMER}
        accepted = client.post("/api/disconnect_instance/", json=email, headers={"Prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        with client.stream("GET", f"{accepted.headers['location']}/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            assert "event: succeeded" in events.read().decode()
        assert api.node.run(["wg", "show", "interfaces"]).stdout.strip() == ""
        removed = client.post("/remove_instances/", json={"body": {"instance": CUSTOMER}})
        assert removed.status_code == 200, removed.text
        assert client.get(f"/api/instances/{CUSTOMER}").status_code == 404
    drift = api.host.run(["/usr/local/sbin/vpnfleet-api", "playbook", "playbooks/drift.yml"])
    assert "failed=0" in drift.stdout


def test_the_service_has_few_rights(api: Deployment) -> None:
    told = api.host.run(["systemd-analyze", "security", "--no-pager", SERVICE]).stdout
    level = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert level is not None
    assert float(level.group(1)) < 3.0
    process = api.property("MainPID")
    status = api.host.read(f"/proc/{process}/status")
    assert re.search(r"CapEff:\t0+$", status, re.M)
    assert re.search(r"NoNewPrivs:\t1$", status, re.M)
    owner = api.host.run(["ps", "-o", "user=", "-p", process]).stdout.strip()
    assert owner == "vpnfleet"


def test_it_comes_back(api: Deployment) -> None:
    before = api.property("MainPID")
    api.host.run(["kill", "-KILL", before])
    deadline = time.monotonic() + 120
    while api.property("MainPID") in ("0", before):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    api.wait_until_ready()
    assert api.property("NRestarts") == "1"
    units = [SERVICE, "nginx.service", "postgresql.service"]
    assert api.host.run(["systemctl", "is-enabled", *units]).stdout == "enabled\n" * 3
    api.host.reboot()
    api.wait_until_ready()


def test_a_second_run_changes_nothing(api: Deployment) -> None:
    since = api.property("MainPID")
    assert api.play("-vvv", "--diff") == 0
    assert api.property("MainPID") == since


def test_an_upgrade_and_the_way_back(api: Deployment, tmp_path: Path) -> None:
    current = "/opt/vpnfleet/current"
    before = api.host.run(["readlink", current]).stdout.strip()
    source = checkout(tmp_path)
    (source / "api_shim" / "new_file.py").write_text('"""New."""\n', encoding="utf-8")
    process = api.property("MainPID")

    assert api.play("--check", "--diff", api_shim_source=str(source)) > 0
    assert api.host.run(["readlink", current]).stdout.strip() == before
    assert api.play(api_shim_source=str(source)) > 0
    after = api.host.run(["readlink", current]).stdout.strip()
    assert after != before
    assert api.property("MainPID") != process
    assert api.host.read(f"{current}/api_shim/new_file.py") == '"""New."""\n'

    api.host.run(["ln", "-sfn", before, current])
    api.host.run(["systemctl", "restart", SERVICE])
    api.wait_until_ready()
    assert (
        api.host.run(["readlink", f"/proc/{api.property('MainPID')}/cwd"]).stdout.strip()
        == f"/opt/vpnfleet/{before}"
    )


def test_what_is_wrong_is_refused_and_not_shown(api: Deployment) -> None:
    file = "/etc/vpnfleet/encryption_key.env"
    there, other = api.host.read(file), Fernet.generate_key().decode()
    api.play("-vvv", "--diff", good=False, api_shim_encryption_key=other)
    assert "has none of the keys" in api.told[-1]
    assert other not in api.told[-1]
    api.play("-vvv", "--diff", good=False, api_shim_secrets={"awx_token": f"{TOKEN}\nTWO=lines"})
    assert "they are not shown" in api.told[-1]
    assert TOKEN not in api.told[-1]
    api.play(good=False, api_shim_settings={"host": "192.0.2.1"})
    assert "Not known: host" in " ".join(api.told[-1].split())
    api.play(good=False, api_shim_database="x; DROP TABLE node")
    assert api.host.read(file) == there


def test_nothing_secret_is_seen(api: Deployment) -> None:
    run = api.host.run
    places = {
        "systemctl show": run(["systemctl", "show", SERVICE]).stdout,
        "systemctl cat": run(["systemctl", "cat", SERVICE]).stdout,
        "journal": run(["journalctl", "--no-pager", "--output=export"]).stdout,
        "nginx": run(["sh", "-c", "cat /var/log/nginx/*"]).stdout,
        "processes": run(["ps", "-efww"]).stdout,
        "playbook": "".join(api.told),
    }
    assert "vpnfleet" in places["journal"]
    for secret in secrets(api):
        assert [name for name, text in places.items() if secret in text] == []
    assert CUSTOMER not in places["nginx"]


def test_files_are_as_private_as_they_should_be(api: Deployment) -> None:
    wanted = {
        "/etc/vpnfleet": "750 root:vpnfleet",
        "/etc/vpnfleet/api.env": "640 root:vpnfleet",
        "/etc/vpnfleet/encryption_key.env": "600 root:root",
        "/etc/vpnfleet/known_hosts": "640 root:vpnfleet",
        "/etc/vpnfleet/secrets.env": "600 root:root",
        "/etc/vpnfleet/tls": "700 root:root",
        "/etc/vpnfleet/tls/api.key": "600 root:root",
        "/opt/vpnfleet": "750 root:vpnfleet",
        "/var/lib/vpnfleet": "700 vpnfleet:vpnfleet",
        "/var/lib/vpnfleet/.ssh": "700 vpnfleet:vpnfleet",
        "/var/lib/vpnfleet/.ssh/id_ed25519": "600 vpnfleet:vpnfleet",
    }
    told = api.host.run(["stat", "-c", "%n %a %U:%G", *wanted]).stdout
    assert dict(line.split(" ", 1) for line in told.splitlines()) == wanted
    foreign = api.host.run(
        [
            "find",
            "/opt/vpnfleet",
            "(",
            "-not",
            "-user",
            "root",
            "-o",
            "-perm",
            "/022",
            ")",
            "-not",
            "-type",
            "l",
        ]
    )
    assert foreign.stdout == ""
    assert api.host.run(["getent", "passwd", "vpnfleet"]).stdout.strip().endswith(":/usr/sbin/nologin")


def log(api: Deployment) -> str:
    """What the server has said last, for a test that fails."""
    return api.host.run(["journalctl", "--no-pager", "--lines=40", f"--unit={SERVICE}"]).stdout


def checkout(folder: Path) -> Path:
    """A copy of what git has here, without git."""
    listed = execute(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    ).stdout
    names: Sequence[str] = [name for name in listed.split("\0") if name]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder
