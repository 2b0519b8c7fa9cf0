"""A customer's device: a host that joins an instance over WireGuard and pings through it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

from tests.lab.host import Host
from tests.lab.ping import PingResult, RunningPing, ping

INTERFACE = "wg0"
_CONFIG = f"/etc/wireguard/{INTERFACE}.conf"


class Device(Host):
    def connect(
        self,
        private_key: str,
        address: str | Sequence[str],
        peer_public_key: str,
        endpoint: str,
        allowed_ips: str | Sequence[str],
        preshared_key: str | None = None,
        keepalive: int | None = None,
    ) -> None:
        """Bring up wg0 as a customer would, by wg-quick; a connection that exists is replaced.

        `address` and `allowed_ips` are one or many in CIDR form, `endpoint` is host:port, `keepalive` in
        seconds. Raises CommandFailed with what wg-quick said.
        """
        self.disconnect()
        lines = ["[Interface]", f"PrivateKey = {private_key}", f"Address = {_joined(address)}", "", "[Peer]"]
        lines.append(f"PublicKey = {peer_public_key}")
        if preshared_key is not None:
            lines.append(f"PresharedKey = {preshared_key}")
        lines += [f"Endpoint = {endpoint}", f"AllowedIPs = {_joined(allowed_ips)}"]
        if keepalive is not None:
            lines.append(f"PersistentKeepalive = {keepalive}")
        self.write(_CONFIG, "\n".join(lines) + "\n", 0o600)
        self.run(["wg-quick", "up", INTERFACE])

    def disconnect(self) -> None:
        """Take wg0 down and forget its configuration. Nothing happens when the device is not connected."""
        if self._connected():
            self.run(["wg-quick", "down", INTERFACE])
        self.run(["rm", "-f", _CONFIG])

    def ping(self, target: str, count: int = 1, interval: float = 0.2, timeout: float = 2) -> PingResult:
        """Ping an address `count` times; where there is no way to it, all are lost."""
        return ping(self.enter(processes=False), _address(target), count, interval, timeout)

    def start_ping(self, target: str, interval: float) -> RunningPing:
        """Ping an address until the returned object's stop(), which gives the PingResult."""
        return RunningPing(self.enter(processes=False), _address(target), interval)

    def handshake_age(self) -> float | None:
        """Seconds since the latest handshake; None where there was none, or no connection."""
        if not self._connected():
            return None
        shown = self.run(["wg", "show", INTERFACE, "latest-handshakes"]).stdout
        latest = max((int(line.split()[1]) for line in shown.splitlines()), default=0)
        return None if latest == 0 else max(0.0, time.time() - latest)

    def _connected(self) -> bool:
        return self.run(["test", "-e", f"/sys/class/net/{INTERFACE}"], check=False).returncode == 0


def _joined(values: str | Sequence[str]) -> str:
    return values if isinstance(values, str) else ", ".join(values)


def _address(target: str) -> str:
    """Refuse a name: a ping that fails because nothing resolves would look like a loss."""
    return str(ipaddress.ip_address(target))
