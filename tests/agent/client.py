"""A client of the agent, on the controller's side of the lab."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import signatures


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True)
class Client:
    """Signs each request by itself, and opens a connection for each."""

    host: str
    port: int
    secret: str
    certificate: Path | None = None
    timeout: float = 60

    def connection(self) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=context)

    def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Send a request as it is."""
        connection = self.connection()
        try:
            connection.request(method, path, body=body or None, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            return Reply(answer.status, json.loads(text), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()

    def headers(
        self, method: str, path: str, body: bytes = b"", timestamp: int | None = None
    ) -> dict[str, str]:
        when = int(time.time()) if timestamp is None else timestamp
        return signatures.headers(self.secret, method, path, body, when)

    def request(self, method: str, path: str, body: bytes = b"", timestamp: int | None = None) -> Reply:
        """Send a signed request."""
        return self.send(method, path, body, self.headers(method, path, body, timestamp))

    def post(self, path: str, fields: dict[str, Any]) -> Reply:
        return self.request("POST", path, json.dumps(fields).encode())

    def syncconf(self, interface: str, config: str | bytes, **more: Any) -> Reply:
        raw = config.encode() if isinstance(config, str) else config
        fields = {"config": base64.b64encode(raw).decode("ascii"), **more}
        # The same call twice within a second would have the same signature, which counts once.
        return self.post(f"/v1/wg/{interface}/syncconf?{time.monotonic_ns()}", fields)

    def health(self) -> Reply:
        return self.request("GET", f"/v1/health?{time.monotonic_ns()}")

    def module(self, name: str, arguments: dict[str, Any], **more: Any) -> Reply:
        nonce = str(time.monotonic_ns())
        return self.post(f"/v1/modules/{name}", {"arguments": arguments, "nonce": nonce, **more})
