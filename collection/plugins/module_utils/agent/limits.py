# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent takes from the network at most."""

from __future__ import annotations

# 50,000 peers with a preshared key and two networks each are 11 MB, and in base64 15 MB.
LONGEST_BODY = 32 * 1024 * 1024  # bytes
LONGEST_ANSWER = 64 * 1024 * 1024  # bytes
LONGEST_HEAD = 16 * 1024  # bytes, request line and headers together
MOST_HEADERS = 64
LONGEST_PATH = 2048  # characters, with the query string

MOST_CONNECTIONS = 512  # above, those that have been the longest without a whole request make room
SHARE = 8  # whoever holds more than one in so many of them makes room first
MOST_BUFFERED = 4 * LONGEST_BODY  # bytes of bodies, of all connections together; above, likewise
MOST_CALLS = 32  # carried out at a time; further ones wait
MOST_WAITING = 256  # further ones are told to come again, and those of one client when they are half of it

HANDSHAKE_SECONDS = 10.0  # of TLS
HEAD_SECONDS = 10.0  # from the first byte of a request to the last of its headers
IDLE_SECONDS = 75.0  # between requests
BODY_SECONDS = 30.0  # for any body, and for one at SLOWEST_BODY as long as it takes
SLOWEST_BODY = 64 * 1024  # bytes a second
STALL_SECONDS = 10.0  # which a body may rest in between; whoever rests longer, or is slower, makes room first
RESERVED = 64 * 1024  # bytes, which a body counts for before they have come; more counts when it is there
ANSWER_SECONDS = 60.0  # until a client has taken its answer
DRAIN_SECONDS = 10.0  # for the clients to take the last answers, when the agent ends

# For a front; one that needs longer is killed.
START_SECONDS = 60.0  # until it is ready
END_SECONDS = 300.0  # from when it is asked to end; less than the unit's TimeoutStopSec
GONE_SECONDS = 5.0  # from the end of its channel to its own


def body_seconds(length: int) -> float:
    """How long a body of `length` bytes may take."""
    return max(BODY_SECONDS, length / SLOWEST_BODY)
