"""`python -m api_shim serve`: the application on uvicorn, until SIGTERM."""

from __future__ import annotations

import argparse
import ipaddress
import math
import signal
import socket
from contextlib import closing
from types import FrameType

import structlog
import uvicorn

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
from api_shim import logs
from api_shim.application import create_app
from api_shim.executor import Executor
from api_shim.service import Service
from api_shim.settings import Settings

_BACKLOG = 2048
_GRACE = 5  # seconds that calls get to end, besides those they may wait for their operation

log = structlog.stdlib.get_logger("api_shim")


class CannotListen(Exception):
    """The address is taken, or none of this machine's."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command; all it needs to know is in the settings."""
    parser = commands.add_parser(
        "serve", help="serve the HTTP interface; docs/api_settings.md lists its settings"
    )
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> None:
    serve(Settings())


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotListen and RegistryError."""
    logs.configure(settings)
    # A registry that is not there is a mistake in the settings, not one to make.
    with (
        closing(open_registry(make=False, pooled=True)) as registry,
        _listen(settings) as listener,
        closing(make_executor(settings)) as executor,
    ):
        service = Service(settings, registry, executor=executor)
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            # What the proxy in front says of itself is of no use here, and anybody could say it.
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(settings.wait_seconds) + _GRACE,
        )
        server = _Server(config, service)
        # uvicorn handles these while it runs and then raises them again: by then all is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])


def make_executor(settings: Settings) -> Executor:
    """What runs playbooks, ready to do so. Raises OSError."""
    if settings.executor == "awx":
        from api_shim.executor_awx import AwxExecutor

        return AwxExecutor(settings)
    from api_shim.executor_local import LocalExecutor

    local = LocalExecutor(settings)
    local.start()
    return local


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let nobody wait any more: those who do are told where to look for the result."""
        self._service.stopping.set()
        self._service.waiting.release()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            log.info("listening", url=_url(sockets[0]))


def _listen(settings: Settings) -> socket.socket:
    where = f"{settings.host} port {settings.port} (VPNFLEET_HOST, VPNFLEET_PORT)"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(f"cannot listen on {where}: {error.strerror or error}") from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"http://{host}:{port}"
