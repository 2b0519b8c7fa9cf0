"""The application: its layers and its routes."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api_shim.bodies import Bodies
from api_shim.document import describe
from api_shim.lifespan import lifespan
from api_shim.logs import RequestLog
from api_shim.paths import Spellings
from api_shim.problems import Unforeseen, add_handlers
from api_shim.refusals import note_problem
from api_shim.request_ids import RequestIds
from api_shim.routes import (
    billing,
    drift,
    health,
    instances,
    node_health,
    nodes,
    operations,
    pages,
    provision,
)
from api_shim.service import Service


def create_app(service: Service) -> FastAPI:
    """The application that serves `service`."""
    app = FastAPI(
        title="vpnfleet",
        version="1",
        description="Runs a WireGuard fleet: nodes, customers' instances, and what is to become of them.",
        lifespan=lifespan,
        openapi_url=None,  # pages.py serves the document and a page that needs nothing from elsewhere
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.service = service
    add_handlers(app, note_problem)
    # Paths are declared in full and without a slash at the end, and no prefix is added here: the log, the metrics and
    # the document name routes by them.
    # They are tried in this order, and of operations callers ask most.
    app.include_router(operations.router)
    app.include_router(health.router)
    app.include_router(pages.router)
    app.include_router(nodes.router)
    app.include_router(node_health.router)
    app.include_router(instances.router)
    app.include_router(provision.router)
    app.include_router(billing.router)
    app.include_router(drift.router)
    # The last one added is the outermost.
    app.add_middleware(Bodies)
    app.add_middleware(Spellings)
    app.add_middleware(Unforeseen)
    app.add_middleware(RequestLog, service=service)
    app.add_middleware(RequestIds)
    describe(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
