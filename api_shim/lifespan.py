"""What is started before the first request is served and stopped after the last one: the place for the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api_shim.service import Service


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The life of an application. The registry is closed by whoever opened it."""
    service: Service = app.state.service
    # Here the worker is started, and its reason for not being ready added to service.readiness.
    try:
        yield
    finally:
        # Here the worker is stopped, before what it uses.
        service.keys.close()
