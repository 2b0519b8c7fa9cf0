"""The HTTP interface: what a call costs beside a bare playbook, bursts, reads, and memory.

The server is started as `python -m api_shim serve` starts it, on a SQLite registry of its own under var/bench/data.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from tests.bench import fleet_data, playbook
from tests.bench.registry import CUSTOMER, Bench
from tests.bench.side_by_side import Comparison, Figure, compare
from tests.lab.fleet import ROOT, Lab
from tests.serve.process import make_key, start

BURST = 200
RATE = 500  # reads a second
SECONDS = 10


@dataclass
class Server:
    """A server that listens."""

    url: str
    key: str
    process: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": self.key}, timeout=300)

    def memory(self) -> int:
        """Bytes that the server and the process that runs its playbooks hold for themselves."""
        mine = [self.process.pid, *_children(self.process.pid)]
        return sum(_private_memory(pid) for pid in mine)


@contextmanager
def serving(bench: Bench) -> Iterator[Server]:
    """A server on a bench's registry, with its inventories and its environment."""
    folder = bench.folder / "inventory"
    folder.mkdir(exist_ok=True)
    for path in bench.inventories:
        (folder / path.name).symlink_to(path)
    environment = {
        **bench.lab.ansible_env(),
        **bench.variables,
        "VPNFLEET_DATABASE_URL": bench.url,
        "VPNFLEET_INVENTORY": str(folder),
        "VPNFLEET_PORT": "0",
        "VPNFLEET_WAIT_SECONDS": "60",
        "VPNFLEET_RATE_LIMIT_DRIFT_ALL": "",
    }
    key = make_key(environment, "bench", "ops")
    process, url = start(environment, bench.folder / "server.log")
    try:
        yield Server(url, key, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def disconnect(lab: Lab, folder: Path, runs: int) -> Comparison:
    """POST /api/disconnect_instance/ to its answer, against ansible-playbook with one module task."""
    bench = Bench(lab, folder / "http_disconnect")
    entry = fleet_data.instance("wgb0", 52000, "10.128.0.0/24", 1)
    bare = fleet_data.write(folder / "http_disconnect" / "bare.json", [entry])
    module = "vpnfleet.wireguard.wg_instance"
    up = playbook.play(folder, "bare_up", {module: {"src": str(bare)}})
    down = playbook.play(folder, "bare_down", {module: {"name": "wgb0", "state": "disconnected"}})
    name = CUSTOMER.format(0)
    with serving(bench) as server, server.client() as client:

        def between() -> None:
            bench.run("provision", instance=name, node="node1", peers=[{"name": "laptop"}])
            playbook.run(lab, up)

        def call() -> None:
            answer = client.post("/api/disconnect_instance/", json={"email": name})
            if answer.status_code != 200:
                raise RuntimeError(answer.text)

        result = compare(
            "http_disconnect_instance",
            1.3,
            ("POST /api/disconnect_instance/, to its answer", call),
            (
                "ansible-playbook with one module task, wg_instance state=disconnected, on the same node",
                lambda: playbook.run(lab, down, changed=True),
            ),
            runs,
            between=between,
        )
        client.post("/remove_instances/", json={"body": {"instance": name}})
    return result


def burst(lab: Lab, folder: Path, _runs: int) -> Comparison:
    """200 removals posted at once, over two nodes, against one of them."""
    bench = Bench(lab, folder / "http_burst")
    everybody = [CUSTOMER.format(number) for number in range(BURST)]
    with serving(bench) as server:

        def between() -> None:
            for number, node in enumerate(("node1", "node2")):
                bench.run("provision", instances=everybody[number::2], node=node, peers=[{"name": "laptop"}])
            bench.run("provision", instance="alone@example.com", node="node1", peers=[{"name": "laptop"}])

        async def remove(names: Sequence[str]) -> None:
            async with httpx.AsyncClient(
                base_url=server.url,
                headers={"X-API-Key": server.key},
                timeout=300,
                limits=httpx.Limits(max_connections=BURST),
            ) as client:
                answers = await asyncio.gather(
                    *(client.post("/remove_instances/", json={"body": {"instance": name}}) for name in names)
                )
            for answer in answers:
                if answer.status_code != 200:
                    raise RuntimeError(answer.text)

        result = compare(
            "http_200_removals_at_once",
            15.0,
            ("200 removals posted at once, to the last answer", lambda: asyncio.run(remove(everybody))),
            ("one removal", lambda: asyncio.run(remove(["alone@example.com"]))),
            3,
            between=between,
        )
        asyncio.run(remove(["alone@example.com"]))
        return result


def reads(lab: Lab, folder: Path, _runs: int) -> list[Figure]:
    """500 requests a second of GET /api/operations/{id}, sent on time whether or not the ones before are answered."""
    bench = Bench(lab, folder / "http_reads")
    with serving(bench) as server, server.client() as client:
        client.post("/remove_instances/", json={"body": {"instance": "nobody@example.com"}})
        number = _an_operation(bench)
        load = [sys.executable, "-m", __name__, server.url, server.key, number]
        done = subprocess.run(load, cwd=ROOT, check=True, capture_output=True, text=True)
        times = json.loads(done.stdout)
    ordered = sorted(times)
    what = (
        f"GET /api/operations/{{id}}, {RATE} a second for {SECONDS} s, with the load on the same processors"
    )
    return [
        Figure("http_reads_p99", f"99 of 100: {what}", [ordered[int(len(ordered) * 0.99)]], 0.05),
        Figure("http_reads_p50", f"half: {what}", [statistics.median(ordered)]),
    ]


def memory(lab: Lab, folder: Path, _runs: int) -> Figure:
    """Memory after 1,000 operations against after 100."""
    bench = Bench(lab, folder / "http_memory")
    with serving(bench) as server, server.client() as client:

        def removals(count: int) -> None:
            def one(number: int) -> None:
                client.post("/remove_instances/", json={"body": {"instance": CUSTOMER.format(number)}})

            with ThreadPoolExecutor(20) as pool:
                list(pool.map(one, range(count)))

        removals(100)
        early = server.memory()
        removals(900)
        late = server.memory()
    return Figure(
        "http_memory",
        f"private memory after 1,000 operations ({late >> 20} MiB) to that after 100 ({early >> 20} MiB)",
        [late / early],
        1.2,
        "ratio",
    )


def _an_operation(bench: Bench) -> str:
    """The id of an operation that is in the registry."""
    with bench.open() as registry, registry.read() as session:
        return session.scalars(select(Operation.id).limit(1)).one()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _private_memory(pid: int) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


async def _load(url: str, key: str, number: str) -> list[float]:
    """The seconds that each read took, from when it was due."""
    where = urlsplit(url)
    request = (
        f"GET /api/operations/{number} HTTP/1.1\r\nHost: {where.netloc}\r\nX-API-Key: {key}\r\n\r\n"
    ).encode()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(64):
        free.put_nowait(await asyncio.open_connection(where.hostname, where.port))
    times: list[float] = []

    async def one(due: float) -> None:
        connection = await free.get()
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        await reader.readexactly(length)
        times.append(time.perf_counter() - due)
        free.put_nowait(connection)

    begun = time.perf_counter() + 0.2
    tasks = []
    for index in range(RATE * SECONDS):
        due = begun + index / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return times


def _main(arguments: Sequence[str]) -> None:
    url, key, number = arguments
    print(json.dumps(asyncio.run(_load(url, key, number))))


if __name__ == "__main__":
    _main(sys.argv[1:])
