# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes between the two processes of the agent: a small JSON object and, beside it, raw bytes, each with its length
before it. Both sides bound what they take from the other.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Dict, Tuple, Union

LONGEST_FIELDS = 64 * 1024  # bytes of the JSON object
LENGTHS = struct.Struct("!II")

Bytes = Union[bytes, bytearray]


class BrokenFrame(Exception):
    """The other side sends what is no frame: it cannot be trusted any further."""


def frame_head(fields: Dict[str, Any], length: int) -> bytes:
    """All of a frame but its raw bytes, of which there will be `length`."""
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    if len(text) > LONGEST_FIELDS:
        raise BrokenFrame("the fields are too long")
    return LENGTHS.pack(len(text), length) + text


def lengths(head: Bytes, longest: int) -> Tuple[int, int]:
    """The lengths of the fields and of the raw bytes, out of a frame's first bytes."""
    fields, raw = LENGTHS.unpack(head)
    if fields > LONGEST_FIELDS or raw > longest:
        raise BrokenFrame("a frame is too long")
    return fields, raw


def fields_of(text: Bytes) -> Dict[str, Any]:
    """The JSON object of a frame."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise BrokenFrame("a frame without fields")
    return fields


def receive(channel: socket.socket, longest: int) -> Tuple[Dict[str, Any], Bytes]:
    """Wait for the next frame. Raises EOFError when the other side has ended, BrokenFrame."""
    fields, raw = lengths(_exactly(channel, LENGTHS.size), longest)
    return fields_of(_exactly(channel, fields)), _exactly(channel, raw)


def send(channel: socket.socket, fields: Dict[str, Any], raw: bytes) -> None:
    """Send a frame. Raises OSError when the other side has ended."""
    channel.sendall(frame_head(fields, len(raw)) + raw)


def _exactly(channel: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            got = channel.recv_into(view)
        except ConnectionError:
            got = 0
        if not got:
            raise EOFError
        view = view[got:]
    return data
