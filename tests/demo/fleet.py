"""The demo's fleet as its operator keeps it: a registry of its own, the nodes as code, and the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.engine import URL, Engine

from tests.demo.playbook import shown
from tests.lab.fleet import Lab

#: Where the demo's nodes stand, as the customers see it.
COUNTRIES = ("DE", "NL")

_POOL = "10.71.0.0/16"
#: What every instance has in IPv6 comes out of the unique local addresses; the lab's own are among them too.
_POOL6 = "fd71:{}::/48"
#: Tables that tell what was, not what is.
_HISTORY = ("operation", "audit_entry")


class Fleet:
    """What `directory` holds of it: registry.db, nodes.yml, inventory/, and what is asked for as JSON.

    The registry is in `database`, an empty PostgreSQL one, where that is given.
    """

    def __init__(self, lab: Lab, directory: Path, database: str | None = None) -> None:
        self._lab = lab
        self._directory = directory
        self._url: URL = make_url(database or f"sqlite:///{directory / 'registry.db'}")

    @property
    def needs_schema(self) -> bool:
        """Whether an operator has to make the schema; SQLite's is made by the way."""
        return self._url.get_backend_name() != "sqlite"

    @property
    def registry(self) -> str:
        """Where the registry is, for the reader."""
        return shown(Path(self._url.database or "")) if not self.needs_schema else "PostgreSQL"

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
        kept["VPNFLEET_DATABASE_URL"] = self._url.render_as_string(hide_password=False)
        if self.needs_schema:
            kept["VPNFLEET_ENCRYPTION_KEY"] = self._key.read_text(encoding="ascii")
        return kept

    @property
    def _key(self) -> Path:
        return self._directory / "registry.key"

    def write(self) -> None:
        """Write what an operator writes; of an earlier demo's registry, nothing stays."""
        for name in ("registry.db", "registry.db-wal", "registry.db-shm", "registry.key"):
            (self._directory / name).unlink(missing_ok=True)
        if self.needs_schema:
            self._key.touch(mode=0o600)
            self._key.write_text(Fernet.generate_key().decode("ascii"), encoding="ascii")
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
        with self._open().connect() as registry:
            known = registry.execute(text("SELECT name, country FROM node ORDER BY name"))
            return [f"{name} ({country})" for name, country in known]

    def tables_with(self, *texts: str) -> list[str]:
        """The registry's tables, but for its history, in which any of these texts stands in a row."""
        found = set()
        engine = self._open()
        with engine.connect() as registry:
            for table in inspect(engine).get_table_names():
                rows = registry.execute(text(f'SELECT * FROM "{table}"'))  # noqa: S608 # a name from the schema itself
                if table not in _HISTORY and any(one in str(row) for row in rows for one in texts):
                    found.add(table)
        return sorted(found)

    def _open(self) -> Engine:
        """The registry, to read from. The demo does not ask the code that it is to prove."""
        return create_engine(self._url)


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(f"---\n{yaml.safe_dump(content, sort_keys=False, width=1000)}", encoding="utf-8")
