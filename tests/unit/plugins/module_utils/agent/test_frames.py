"""A channel whose other side has gone has ended, whichever way it went."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import (
    BrokenFrame,
    frame_head,
    receive,
    send,
)


@pytest.mark.parametrize("unread", [b"", b"x"], ids=["closed", "reset"])
def test_an_end_in_the_middle_is_an_end(unread: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            ours.send(unread)  # what nobody reads any more makes the end a reset
            theirs.send(frame_head({"id": 1}, 10)[:-3])
        with pytest.raises(EOFError):
            receive(ours, 10)


def test_what_goes_in_comes_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, {"id": 1, "text": "ü"}, b"\0raw")
        assert receive(theirs, 4) == ({"id": 1, "text": "ü"}, b"\0raw")
        send(ours, {}, b"12345")
        with pytest.raises(BrokenFrame, match="a frame is too long"):
            receive(theirs, 4)
