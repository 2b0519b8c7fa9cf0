# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules on the nodes answer, as outcomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import stages
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import Outcome
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.visible_text import visible

_LONGEST = 2000
# What Ansible says before what ssh says; the name is told already.
_FOREWORD = re.compile(r".*\b(?:via|over) ssh:\s*(?:ssh:\s*)?(?=\S)")
# What ssh calls the part of itself that uses a connection which others have opened.
_SHARED = re.compile(r"\Amux_client_\w+: ")


def of_instance(told: Mapping[str, Any] | None, answer: Mapping[str, Any]) -> Outcome:
    """How it went with one instance: `told` is what wg_instance says of it; None when the `answer` has nothing."""
    if told is None:
        return failed(str(answer.get("msg", "no answer")))
    if told.get("error"):
        return Outcome(stages.FAILED, error=on_one_line(str(told["error"])))
    return Outcome(stages.DONE, bool(told["changed"]))


def failed(text: str) -> Outcome:
    """It did not go, for this reason."""
    return Outcome(stages.FAILED, error=first_line(text))


def unreachable(text: str) -> Outcome:
    """The node could not be reached, for this reason."""
    said = _FOREWORD.sub("", text.strip(), count=1)
    return Outcome(stages.UNREACHABLE, error=first_line(_SHARED.sub("the shared connection broke: ", said)))


def first_line(text: str) -> str:
    """What a person is told of a long text, which a node may have written: no escape sequence gets to a terminal."""
    return visible((text.strip().splitlines() or [""])[0], 500)


def on_one_line(text: str) -> str:
    """All of a text, which a node may have written, as far as a person reads."""
    return visible(" ".join(text.split()), _LONGEST)
