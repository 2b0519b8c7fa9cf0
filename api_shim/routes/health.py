"""Whether it lives, whether it is ready, and its numbers. For load balancers and Prometheus: without a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from api_shim.metrics import CONTENT_TYPE, read_snapshot
from api_shim.service import Service, TheService

SECONDS = 2.0
T = TypeVar("T")
router = APIRouter(tags=["health"])
log = structlog.stdlib.get_logger("api_shim")


class Running(BaseModel):
    """The old backend's sign of life."""

    msg: Literal["VPN API is running"]


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"]


class Unready(BaseModel):
    """It is not ready, and why."""

    status: Literal["unavailable"]
    reason: str


# These two take no thread: those there are may all wait for a registry that hangs.
@router.get("/", response_model=Running)
async def root() -> dict[str, str]:
    """Say that it runs."""
    return {"msg": "VPN API is running"}


@router.get("/healthz", response_model=Health)
async def healthz() -> dict[str, str]:
    """Whether the process lives; a restart helps where it does not."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Unready, "description": "It cannot serve at the moment"}},
)
async def readyz(service: TheService) -> Any:
    """Whether it can serve: the registry can be read, and the worker is at work."""
    late: str | None = "the registry does not answer"
    reason = await _in_time(lambda: _why_not(service), late)
    if reason is None:
        return {"status": "ok"}
    return JSONResponse({"status": "unavailable", "reason": reason}, 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: TheService) -> Response:
    """The numbers, as Prometheus scrapes them. Those of the registry are missing while it cannot be read."""

    def read() -> Any:
        try:
            return read_snapshot(service.registry)
        except RegistryError as error:
            log.warning("the registry cannot be read for the metrics", reason=str(error))
            return None

    snapshot = await _in_time(read, None)
    return Response(service.metrics.render(snapshot), headers={"Content-Type": CONTENT_TYPE})


def _why_not(service: Service) -> str | None:
    try:
        with service.registry.read() as session:
            session.execute(select(Node.id).limit(1)).all()
    except RegistryError as error:
        log.warning("not ready: the registry cannot be read", reason=str(error))
        return "the registry cannot be read"
    except Exception as error:
        log.error("not ready", exc_info=error)
        return "the registry cannot be read"
    return service.ready()


# A registry that hangs holds these few threads, and none of those that serve requests.
_checks = anyio.CapacityLimiter(4)


async def _in_time(check: Callable[[], T], late: T) -> T:
    """What `check` says; `late` when it says nothing in time."""
    with anyio.move_on_after(SECONDS):
        return await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=_checks)
    return late
