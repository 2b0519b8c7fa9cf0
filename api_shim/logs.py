"""The log: one line per event to stderr, as JSON or for a person, with nothing secret in it.

The standard library's loggers (uvicorn, SQLAlchemy) come out the same way.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.types import Processor

from api_shim.settings import Settings

if TYPE_CHECKING:
    from api_shim.service import Service

HIDDEN = "[redacted]"
UNMATCHED = "unmatched"
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

_SECRET_NAME = re.compile(
    r"(?:^|[_.\s-])(?:key|keys|token|secret|password|passwd|authorization|cookie|credentials?)$",
    re.IGNORECASE,
)
_SECRETS = (
    # Ours, a WireGuard key and a Fernet key, wherever they stand in a text.
    (re.compile(r"vpf_[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"[A-Za-z0-9+/_-]{43}="), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # The password of a URL; it may hold an @ itself.
    (re.compile(r"(://[^\s:/@]*):[^\s/]+@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api_?key|private_?key|preshared_?key)[\"']?\s*[=:]\s*[\"']?)"
            r"(?!\[redacted\])[^\s\"',;&}]+"
        ),
        rf"\1{HIDDEN}",
    ),
)

log = structlog.stdlib.get_logger("api_shim")


def redacted(text: str) -> str:
    """`text` without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: hides secrets by the name of the value and by what they look like, tracebacks included."""
    for name, value in list(event.items()):
        event[name] = HIDDEN if _SECRET_NAME.search(name) and value is not None else _hide(value)
    return event


def _hide(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {
            redacted(str(name)): HIDDEN
            if _SECRET_NAME.search(str(name)) and each is not None
            else _hide(each)
            for name, each in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_hide(each) for each in value]
    return redacted(value if isinstance(value, str) else str(value))


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def configure(settings: Settings) -> None:
    """Log to stderr as the settings say. For the whole process: called by what serves, not by the application."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "text":
        renderer = structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    logging.getLogger("uvicorn.access").disabled = True
    # What it says while all is well is said here, once.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    for noisy in ("alembic", "asyncio", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class RequestLog:
    """One line and one count per request, by the route and not by the path: paths hold customers' names."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = 499  # as nginx has it: the caller went away before there was an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", UNMATCHED)
            who = scope["state"].get("caller")
            self._service.metrics.count_request(method, route, status, seconds)
            log.info(
                "request",
                method=method,
                route=route,
                status=status,
                duration_ms=round(seconds * 1000, 1),
                caller=who.name if who else None,
            )
