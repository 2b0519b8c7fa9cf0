"""The demo's fleet as its operator keeps it: a registry of its own, the nodes as code, and the inventory."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.lab.fleet import Lab

#: Where the demo's nodes stand, as the customers see it.
COUNTRIES = ("DE", "NL")

_POOL = "10.71.0.0/16"
#: What every instance has in IPv6 comes out of the unique local addresses; the lab's own are among them too.
_POOL6 = "fd71:{}::/48"
#: Tables that tell what was, not what is.
_HISTORY = ("operation", "audit_entry")


class Fleet:
    """What `directory` holds of it: registry.db, nodes.yml, inventory/, and what is asked for as JSON."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory

    @property
    def registry(self) -> Path:
        return self._directory / "registry.db"

    @property
    def nodes(self) -> Path:
        return self._directory / "nodes.yml"

    @property
    def inventory(self) -> Path:
        return self._directory / "inventory" / "registry.yml"

    def environment(self) -> dict[str, str]:
        """What the playbooks find in their environment: this fleet's registry, and nobody else's."""
        kept = {
            name: value for name, value in self._lab.ansible_env().items() if not name.startswith("VPNFLEET_")
        }
        return {**kept, "VPNFLEET_DATABASE_URL": f"sqlite:///{self.registry}"}

    def write(self) -> None:
        """Write what an operator writes; of an earlier demo's registry, nothing stays."""
        for name in ("registry.db", "registry.db-wal", "registry.db-shm", "registry.key"):
            (self._directory / name).unlink(missing_ok=True)
        internet = (self._lab.addresses.gateway, self._lab.addresses.gateway6)
        pools6 = [_POOL6.format(number) for number in range(1, len(COUNTRIES) + 1)]
        nodes = [
            {
                "name": node.name,
                "ansible_host": node.address,
                "endpoint": node.address,
                "country": country,
                "dns_name": f"{node.name}.example.com",
                "ip_pool_cidr": _POOL,
                "ip6_pool_cidr": pool6,
                # A device is reached by SSH and ping besides its tunnel: not everything goes into that.
                "override_endpoint_allowed_ip": ", ".join((_POOL, *pools6, *internet)),
            }
            for node, country, pool6 in zip(self._lab.nodes, COUNTRIES, pools6, strict=True)
        ]
        _write_yaml(self.nodes, {"nodes": nodes})
        login = self.inventory.parent / "group_vars" / "nodes.yml"
        login.parent.mkdir(parents=True, exist_ok=True)
        _write_yaml(self.inventory, {"plugin": "vpnfleet.wireguard.registry"})
        # How to log in: the lab's key and its hosts' keys.
        lab = yaml.safe_load(self._lab.inventory.read_text(encoding="utf-8"))
        _write_yaml(login, lab["nodes"]["vars"])

    def write_request(self, name: str, variables: dict[str, Any]) -> str:
        """Write extra vars to a file, for secrets have no place in a command line; the value of -e that names it."""
        path = self._directory / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(variables, indent=2) + "\n", encoding="utf-8")
        return f"@{path}"

    def nodes_known(self) -> list[str]:
        """The nodes in the registry, with their countries."""
        with closing(self._open()) as registry:
            return [
                f"{name} ({country})"
                for name, country in registry.execute("SELECT name, country FROM node ORDER BY name")
            ]

    def tables_with(self, *texts: str) -> list[str]:
        """The registry's tables, but for its history, in which any of these texts stands in a row."""
        found = set()
        with closing(self._open()) as registry:
            tables = [
                name for (name,) in registry.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            ]
            for table in tables:
                rows = registry.execute(f'SELECT * FROM "{table}"')  # noqa: S608 # a name from the schema itself
                if table not in _HISTORY and any(text in str(row) for row in rows for text in texts):
                    found.add(table)
        return sorted(found)

    def _open(self) -> sqlite3.Connection:
        """The registry, to read from. The demo does not ask the code that it is to prove."""
        return sqlite3.connect(f"{self.registry.as_uri()}?mode=ro", uri=True)


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(f"---\n{yaml.safe_dump(content, sort_keys=False, width=1000)}", encoding="utf-8")
