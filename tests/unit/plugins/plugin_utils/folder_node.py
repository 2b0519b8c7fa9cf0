"""A node made of a folder: its programs, /etc/wireguard and /run, read by a real sh or by commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import source, traces
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config, Unit
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import probe
from tests.unit.plugins.module_utils.generated import by_key, peer, preshared_key, private_key, public_key_of

MARK = "0123456789abcdef" * 2
PEERS = [
    peer(1, "10.0.0.2/32"),
    peer(2, "10.0.0.3/32", "fd00::3/128", preshared_key=preshared_key(2), persistent_keepalive=25),
]
CONFIG = Config(private_key(1), 51820, ("10.0.0.1/24",), by_key(*PEERS))


ADDRESSES = json.dumps(
    [
        {},
        {"ifname": "eth0", "flags": ["UP"], "mtu": 1500, "addr_info": []},
        {
            "ifname": "wg1",
            "flags": ["UP"],
            "mtu": 1420,
            "linkinfo": {"info_kind": "tun"},
            "addr_info": [{"local": "10.0.0.1", "prefixlen": 24}],
        },
    ]
)
ROUTES = json.dumps([{"dst": "10.9.0.0/16", "dev": "wg1"}])


def dump() -> str:
    lines = ["\t".join(("wg1", private_key(1), public_key_of(private_key(1)), "51820", "off"))]
    for one in PEERS:
        fields = (
            *("wg1", one.public_key, one.preshared_key or "(none)", "192.0.2.9:1234"),
            *(",".join(one.allowed_ips), "0", "1", "2", str(one.persistent_keepalive or "off")),
        )
        lines.append("\t".join(fields))
    return "".join(f"{line}\n" for line in lines)


class Node:
    """A folder in the place of a node's: its programs, /etc/wireguard and /run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "etc", "run/wireguard"):
            (root / name).mkdir(parents=True)
        self.program("ip", f"case $* in *address*) echo '{ADDRESSES}' ;; *-4*) echo '{ROUTES}' ;; esac")
        self.program(
            "wg", f"if [ $2 = interfaces ]; then cut -f 1 {root}/dump | uniq; else cat {root}/dump; fi"
        )
        (root / "dump").write_text(dump(), encoding="ascii")
        (root / "run/wireguard/wg1.sock").touch()

    def program(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.root / "etc" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def script(self, *interfaces: str, whole: bool = False, again: bool = False) -> str:
        """What is sent, with this folder's paths."""
        text = probe.text(interfaces, MARK, whole, again)
        for real, here in (("/etc/wireguard", "etc"), ("/etc/systemd", "systemd"), ("/run/", "run/")):
            assert real in text
            text = text.replace(real, f"{self.root}/{here}")
        return text.replace("PATH=", f"PATH={self.root}/bin:", 1)

    def print(self, *interfaces: str, **asked: bool) -> str:
        done = subprocess.run(
            ["sh"], input=self.script(*interfaces, **asked), capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout

    def reading(self, *interfaces: str, **asked: bool) -> Moved:
        return Moved(probe.parse(self.print(*interfaces, **asked), MARK), self.root)


class Moved:
    """A reading, of a node whose paths are elsewhere."""

    def __init__(self, reading: probe.Reading, root: Path) -> None:
        self.reading = reading
        self.root = root

    def addresses(self) -> str:
        return self.reading.addresses()

    def routes(self, family: str) -> str:
        return self.reading.routes(family)

    def dump(self, interface: str) -> source.Printed:
        return self.reading.dump(interface)

    def peers(self, interface: str) -> source.Printed:
        return self.reading.peers(interface)

    def traces(self, config_dir: str) -> dict[str, str]:
        return self.reading.traces(config_dir)

    def has_socket(self, interface: str) -> bool:
        return f"{self.root}/run/wireguard/{interface}.sock" in self.reading.sections["sockets"].stdout

    def file(self, path: str) -> source.File | None:
        return self.reading.file(path.replace("/etc/wireguard", f"{self.root}/etc"))

    def units(self, interfaces: Sequence[str], config_dir: str) -> dict[str, Unit | None]:
        return self.reading.units(interfaces, config_dir)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


class Commands:
    """The same node read by commands, as on the node itself."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        here = source.ThisNode()

        def call(*arguments: str) -> object:
            if name in ("dump", "addresses", "routes"):
                asked: Mapping[str, list[str]] = {
                    "dump": ["wg", "show", *arguments, "dump"],
                    "addresses": list(source.ADDRESSES),
                    "routes": source.routes_command(*arguments) if name == "routes" else [],
                }
                program, *rest = asked[name]
                done = subprocess.run(
                    [str(self.node.root / "bin" / program), *rest],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                return (
                    source.Printed(done.returncode, done.stdout, done.stderr)
                    if name == "dump"
                    else done.stdout
                )
            if name == "has_socket":
                return (self.node.root / "run/wireguard" / f"{arguments[0]}.sock").exists()
            if name == "file":
                return here.file(arguments[0].replace("/etc/wireguard", f"{self.node.root}/etc"))
            if name == "traces":
                return traces.told_by([path.name for path in (self.node.root / "etc").iterdir()], [])
            return dict.fromkeys(arguments[0])

        return call
