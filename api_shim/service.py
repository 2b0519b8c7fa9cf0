"""What the application's parts share; in a route, it is `request.app.state.service`, or the dependency `TheService`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from api_shim.key_ring import KeyRing
from api_shim.metrics import Metrics
from api_shim.rate_limits import PREFIX, RateLimits
from api_shim.settings import Settings


@dataclass
class Service:
    """One application's settings, registry and state. Whoever opened the registry closes it."""

    settings: Settings
    registry: Registry
    #: Reasons why it is not ready, besides the registry's: each gives a sentence, or None. They must be quick.
    readiness: list[Callable[[], str | None]] = field(default_factory=list)
    keys: KeyRing = field(init=False)
    metrics: Metrics = field(init=False)
    rate_limits: RateLimits = field(init=False)

    def __post_init__(self) -> None:
        """Make what is made of the settings and the registry."""
        self.keys = KeyRing(self.registry)
        self.metrics = Metrics()
        self.rate_limits = RateLimits(
            {name: text for name, text in self.settings.model_dump().items() if name.startswith(PREFIX)}
        )

    def ready(self) -> str | None:
        """Why it is not ready to serve; None when it is."""
        return next((why for why in (check() for check in self.readiness) if why is not None), None)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
