"""What a person is told of a node that does not answer, or answers with an error."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.module_answers import (
    of_instance,
    unreachable,
)

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
        (
            "Failed to connect to the host via ssh: mux_client_request_session: read from master failed: Broken pipe",
            "the shared connection broke: read from master failed: Broken pipe",
        ),
        ("Failed to connect to the host via ssh: ", "Failed to connect to the host via ssh:"),
        ("timed out", "timed out"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("", ""),
    ],
)
def test_of_what_ssh_says_what_matters(text: str, told: str) -> None:
    assert unreachable(text).error == told


def test_of_what_a_node_says_all_of_it_on_one_line_that_can_be_shown() -> None:
    told = {
        "name": "wg1",
        "changed": False,
        "error": "the hook failed: no\n  way\x1b[2J (undone)" + "!" * 5000,
    }
    error = of_instance(told, {}).error
    assert error is not None
    assert error.startswith("the hook failed: no way\\u001b[2J (undone)!!")
    assert len(error) < 2100
