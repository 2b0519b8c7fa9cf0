"""What is started before the first request is served and stopped after the last one: the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI

from api_shim.service import Service


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The life of an application. The registry is closed by whoever opened it."""
    service: Service = app.state.service
    await service.waiting.start()
    if service.worker is not None:
        service.worker.start()
    try:
        yield
    finally:
        service.stopping.set()
        await service.waiting.close()
        if service.worker is not None:
            await anyio.to_thread.run_sync(service.worker.stop, service.settings.stop_seconds)
        service.keys.close()
