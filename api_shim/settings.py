"""Settings, from environment variables with the prefix VPNFLEET_; docs/api_settings.md lists them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_shim import rate_limits

_HERE = Path(__file__).resolve().parent
# Where the package is installed, what is needed of a checkout comes along with it.
_PROJECT = _HERE / "project" if (_HERE / "project").is_dir() else _HERE.parent


class Settings(BaseSettings):
    """Each field is a variable: `wait_seconds` is VPNFLEET_WAIT_SECONDS.

    VPNFLEET_DATABASE_URL and VPNFLEET_ENCRYPTION_KEY are the registry's own: docs/registry.md.
    """

    model_config = SettingsConfigDict(env_prefix="VPNFLEET_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="address to listen on; TLS is the reverse proxy's")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0: any that is free")
    wait_seconds: float = Field(
        default=8,
        ge=0,
        le=60,
        description="seconds that a call waits for its operation to end before it answers 202",
    )
    executor: Literal["local", "awx"] = Field(
        default="local", description="what runs playbooks: ansible-runner here, or AWX"
    )
    project: Path = Field(
        default=_PROJECT, description="the checkout, or another folder with playbooks/ and ansible.cfg"
    )
    inventory: Path = Field(
        default=Path("inventories/production"), description="inventory of the runs, relative to the project"
    )
    runs: int = Field(default=4, ge=1, le=64, description="playbooks that run at the same time")
    run_timeout: float = Field(
        default=900, gt=0, description="seconds after which a run is ended and tried again"
    )
    stop_seconds: float = Field(
        default=30,
        ge=0,
        description="seconds that runs get to end when the server is told to stop; then they are ended",
    )
    lease_seconds: float = Field(
        default=60,
        ge=5,
        le=3600,
        description="seconds after which another replica takes over from one that went silent",
    )
    drift_interval: int = Field(
        default=0,
        ge=0,
        le=86400,
        description="seconds between two looks at all enabled nodes, by all replicas together; 0: none",
    )
    drift_node_timeout: int = Field(
        default=5,
        ge=1,
        le=3600,
        description="seconds that a node has to answer in a look asked for over HTTP; less than wait_seconds",
    )
    checks_kept: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="looks and reconciles of each node of which is kept what they found",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="what is logged"
    )
    log_format: Literal["json", "text"] = Field(default="json", description="lines of JSON, or for a person")
    rate_limit_drift_node: str = Field(
        default="10/minute", description="limit of GET /api/drift/nodes/{id}, by key and node; empty: none"
    )
    rate_limit_drift_all: str = Field(
        default="2/minute", description="limit of GET /api/drift/nodes, by key; empty: none"
    )
    rate_limit_reconcile: str = Field(
        default="5/hour",
        description="limit of POST /api/drift/nodes/{id}/reconcile, by key and node; empty: none",
    )
    rate_limit_node_update: str = Field(
        default="10/minute", description="limit of PUT /api/nodes/{id}, by key; empty: none"
    )
    awx_url: str = Field(default="", description="AWX's address, such as https://awx.example.com")
    awx_token: SecretStr = Field(
        default=SecretStr(""), description="AWX's token of a user who may execute the templates"
    )
    awx_ca: Path | None = Field(
        default=None, description="file of the certificates by which AWX is trusted; else the system's"
    )

    @field_validator(
        "rate_limit_drift_node", "rate_limit_drift_all", "rate_limit_reconcile", "rate_limit_node_update"
    )
    @classmethod
    def _is_limit(cls, text: str) -> str:
        rate_limits.parse(text)
        return text

    @cached_property
    def inventory_path(self) -> Path:
        """The inventory, absolute."""
        return self.project / self.inventory
