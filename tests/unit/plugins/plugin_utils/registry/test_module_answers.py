"""What a person is told of a node that does not answer."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.module_answers import unreachable

REFUSED = "connect to host 192.0.2.1 port 22: Connection refused"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"Failed to connect to the host via ssh: ssh: {REFUSED}", REFUSED),
        (f"Task failed: Failed to connect to the host via ssh: ssh: {REFUSED}\r\nmore", REFUSED),
        (
            f"Data could not be sent to remote host. Make sure this host can be reached over ssh: ssh: {REFUSED}",
            REFUSED,
        ),
        (
            "Failed to connect to the host via ssh: Host key verification failed.",
            "Host key verification failed.",
        ),
        ("Failed to connect to the host via ssh: ", "Failed to connect to the host via ssh:"),
        ("timed out", "timed out"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("", ""),
    ],
)
def test_of_what_ssh_says_what_matters(text: str, told: str) -> None:
    assert unreachable(text).error == told
