"""Whether a node answers: its agent, or its SSH server's banner, which needs no login."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import (
    Agent,
    AgentError,
    health,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node

_SSH = 22
SECONDS = 3.0
_MOST_BYTES = 8192  # before the banner a server may say other things (RFC 4253, 4.2)


@dataclass(frozen=True)
class Reached:
    """Why a node does not answer at the moment, or None when it does; and what its agent says, where it has one."""

    error: str | None
    told: Mapping[str, Any] | None = None


async def reachability(node: Node, agent: Agent | None) -> Reached:
    """Ask a node whether it is there. `agent` is the one by which it is reached, if it is. It takes a few seconds at
    the most, raises nothing, and its words have no addresses and no secrets; what an agent says is as it came."""
    if agent is None:
        return Reached(await unreachable(node.ansible_host or node.name, node.ansible_port or _SSH))
    try:
        return Reached(None, await asyncio.wait_for(asyncio.to_thread(health, agent, SECONDS), 3 * SECONDS))
    except TimeoutError:
        return Reached(f"no answer within {3 * SECONDS:g} s")
    except AgentError as error:
        return Reached(str(error))


async def unreachable(host: str, port: int, seconds: float = SECONDS) -> str | None:
    """Why the SSH server at `host` does not answer within `seconds`; None when it does."""
    try:
        async with asyncio.timeout(seconds):
            return await _ask(host, port)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except ConnectionRefusedError:
        return "connection refused"
    except OSError as error:
        # Its text would have addresses, and says no more than this for what is left: names and routes.
        return "host name not known" if type(error).__name__ == "gaierror" else "no connection"
    except ValueError:  # a name that cannot be written as IDNA
        return "host name not known"


async def _ask(host: str, port: int) -> str | None:
    reader, writer = await asyncio.open_connection(host, port, limit=_MOST_BYTES)
    try:
        said = b""
        while len(said) < _MOST_BYTES:
            more = await reader.read(1024)
            if not more:
                return "the connection ended before an SSH banner"
            said += more
            if any(line.startswith(b"SSH-") for line in said.split(b"\n")):
                return None
        return "what answers is no SSH server"
    finally:
        writer.close()
