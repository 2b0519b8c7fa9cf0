# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection of the front: HTTP's requests and answers on it, and how long each may take."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.authentication import unauthorized
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.clients import client_of
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.http_head import (
    BadRequest,
    Head,
    answer_head,
    parse_head,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.signatures import (
    timely,
    well_formed,
)

if TYPE_CHECKING:
    from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.front import Front

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection, which carries one request after the other."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: Any = None
        self._peer = ""
        self.client = ""  # whom it counts for
        self._data = bytearray()  # of the next head, and what came with it
        self._head: Optional[Head] = None
        self._body = bytearray()
        self._waits = False  # for its answer
        self._closing = False
        self._said_all = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self.since = front.loop.time()  # when it began to be without a whole request
        self.due = 0.0  # when more of its body has to come, for it to keep its rate

    # -- what the front asks

    def waits(self) -> bool:
        """Whether its request is whole and has no answer yet."""
        return self._waits

    def buffered(self) -> int:
        """How many bytes its request's body has, or some of those that it will have."""
        if self._head is None or (self._closing and not self._waits):
            return 0
        if self._waits:
            return self._head.length
        return max(len(self._body), min(self._head.length, limits.RESERVED))

    def keeps_rate(self, now: float) -> bool:
        """Whether its request is whole, or its body comes quickly enough."""
        return self._waits or (self._head is not None and now <= self.due)

    def request(self) -> Any:
        """The fields and the body of the request, for the privileged process."""
        head = self._head
        if head is None:
            raise ValueError("there is no request")  # it does not wait
        fields = {
            "method": head.method,
            "path": head.path,
            "signature": head.headers["x-signature"],
            "timestamp": head.headers["x-timestamp"],
            "peer": self._peer,
        }
        body, self._body = self._body, bytearray()
        return fields, body

    # -- what the transport tells

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        address = transport.get_extra_info("peername")
        self._peer = str(address[0]) if address else ""
        self.client = client_of(address)
        self._front.connections.add(self)
        self._within(limits.HEAD_SECONDS, self._too_slow)
        if self._front.draining:
            self.close()

    def connection_lost(self, _error: Optional[Exception]) -> None:
        self._front.connections.discard(self)
        self._waits = False
        self._within(None)

    def eof_received(self) -> bool:
        """A client that has said all may still wait for its answers."""
        self._said_all = True
        return self._waits

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._head is not None and not self._waits:
            self._body += data
            now = self._front.loop.time()
            self.due = min(max(self.due, now) + len(data) / limits.SLOWEST_BODY, now + limits.STALL_SECONDS)
            if len(self._body) > limits.RESERVED:
                self._front.make_room_for_body(self)
        else:
            if not self._data and not self._waits:
                self._within(limits.HEAD_SECONDS, self._too_slow)
            self._data += data
        self._go_on()

    # -- the request

    def _go_on(self) -> None:
        if self._waits:
            if len(self._data) > limits.LONGEST_HEAD:
                self._transport.pause_reading()
            return
        if self._head is None:
            self._take_head()
        if self._head is not None and not self._closing and len(self._body) >= self._head.length:
            self._take_request(self._head)

    def _take_head(self) -> None:
        end = self._data.find(_HEAD_END)
        if end > limits.LONGEST_HEAD or (end < 0 and len(self._data) > limits.LONGEST_HEAD):
            self.refuse(431, "the headers are too long")
            return
        if end < 0:
            return
        try:
            head = parse_head(bytes(self._data[:end]))
        except BadRequest as error:
            self.refuse(error.status, str(error))
            return
        path, timestamp = head.path, head.headers.get("x-timestamp", "")
        signature = head.headers.get("x-signature", "")
        if not well_formed(signature, path, timestamp) or not timely(timestamp, time.time()):
            self.refuse(401, unauthorized(time.time()))
            return
        self._head = head
        self._body = self._data[end + len(_HEAD_END) :]
        self._data = bytearray()
        self._within(limits.body_seconds(head.length), self._too_slow)
        self.due = self._front.loop.time() + limits.STALL_SECONDS
        self._front.make_room_for_body(self)
        if head.expects_continue and not self._closing and len(self._body) < head.length:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_request(self, head: Head) -> None:
        self._data = self._body[head.length :]  # of the request after it
        del self._body[head.length :]
        self._waits = True
        self._within(None)
        self._front.submit(self)

    # -- the answer

    def answer(self, status: int, body: bytes, headers: Dict[str, str]) -> None:
        """Answer the request, and go on with the next one if there may be one."""
        head = self._head
        if head is None or not self._waits:
            return  # the client has gone
        keep = head.keep_alive and not self._front.draining and not (self._said_all and not self._data)
        self._waits, self._head, self._body = False, None, bytearray()
        self.since = self._front.loop.time()
        self._write(status, body, keep, headers)
        if not keep:
            self.close()
            return
        self._transport.resume_reading()
        self._within(limits.HEAD_SECONDS if self._data else limits.IDLE_SECONDS, self._too_slow)
        if self._data:
            self._front.loop.call_soon(self._go_on)

    def refuse(self, status: int, message: str, headers: Optional[Dict[str, str]] = None) -> None:
        """Answer what is not carried out, and close: what of the request is still to come is not read."""
        tell(f"{self._peer} {status} {message.split(':')[0]}")
        self._waits, self._body = False, bytearray()
        self._write(status, json.dumps({"error": message}).encode("ascii"), False, headers or {})
        self.close()

    def _write(self, status: int, body: bytes, keep: bool, headers: Dict[str, str]) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(answer_head(status, len(body), keep, headers) + body)

    def close(self) -> None:
        """Close when the client has taken what was written; in ANSWER_SECONDS it must."""
        self._closing = True
        if self._transport.can_write_eof():
            # What the client still sends is read and passed over for a moment: closing at once would take from it the
            # answer that it has not read yet.
            try:
                self._transport.write_eof()
            except OSError:
                self.abort()
                return
            self._transport.resume_reading()
            self._within(
                2.0 if not self._transport.get_write_buffer_size() else limits.ANSWER_SECONDS, self.abort
            )
        else:
            self._transport.close()
            self._within(limits.ANSWER_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once. From now on it does not count any more, whenever the transport tells that it is lost."""
        self._closing = True
        self._front.connections.discard(self)
        self._transport.abort()

    def _too_slow(self) -> None:
        if self._head is None and not self._data:
            self.close()  # it was only idle
        else:
            self.refuse(408, "the request did not come in time")

    def _within(self, seconds: Optional[float], otherwise: Any = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._front.loop.call_later(seconds, otherwise)
