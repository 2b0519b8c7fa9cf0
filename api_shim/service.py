"""What the application's parts share; in a route, it is `request.app.state.service`, or the dependency `TheService`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from api_shim.executor import Executor
from api_shim.key_ring import KeyRing
from api_shim.metrics import Metrics
from api_shim.rate_limits import PREFIX, RateLimits
from api_shim.recorder import Recorder
from api_shim.settings import Settings
from api_shim.waiting import Waiting
from api_shim.worker import Worker


@dataclass
class Service:
    """One application's settings, registry and state. Whoever opened the registry closes it."""

    settings: Settings
    registry: Registry
    #: What runs playbooks; without it, operations are recorded and left to another replica.
    executor: Executor | None = None
    #: Set when the server is about to stop: nobody is to begin to wait.
    stopping: threading.Event = field(default_factory=threading.Event)
    recorder: Recorder = field(init=False)
    waiting: Waiting = field(init=False)
    worker: Worker | None = field(init=False)
    keys: KeyRing = field(init=False)
    metrics: Metrics = field(init=False)
    rate_limits: RateLimits = field(init=False)

    def __post_init__(self) -> None:
        """Make what is made of the settings and the registry."""
        self.keys = KeyRing(self.registry)
        self.metrics = Metrics()
        self.recorder = Recorder(self.registry)
        self.waiting = Waiting(self.registry)
        self.worker = (
            Worker(self.registry, self.executor, self.settings, self.waiting.notify, self.metrics.count_run)
            if self.executor is not None
            else None
        )
        self.rate_limits = RateLimits(
            {name: text for name, text in self.settings.model_dump().items() if name.startswith(PREFIX)}
        )

    def wake(self) -> None:
        """There is something to carry out, or to cancel."""
        if self.worker is not None:
            self.worker.wake()

    def ready(self) -> str | None:
        """Why nothing would be carried out; None when all is well. It asks nobody, and takes no time."""
        return self.worker.problem() if self.worker is not None else None


# Not a plain function: the framework would run that in a thread, for each request.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
