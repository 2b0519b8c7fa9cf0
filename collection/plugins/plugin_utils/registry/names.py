# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What instances, nodes, hosts and interfaces may be called.

The patterns are narrower than the standards: a name that passes is no template, no shell syntax, no SQL, no path and no
pattern of Ansible's, wherever it is put later.
"""

from __future__ import annotations

import re

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import check_name
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput, shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid

# RFC 5321, 4.5.3.1: what a mail server has to take.
LONGEST_EMAIL = 254
LONGEST_LOCAL_PART = 64
# RFC 1035, 2.3.4, as text.
LONGEST_HOST_NAME = 253

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Dots stand between other characters only, and no name begins like an option.
LOCAL_PART = r"[A-Za-z0-9_][A-Za-z0-9_%+-]*(?:\.[A-Za-z0-9_%+-]+)*"
_HOST_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
_LOCAL_PART = re.compile(LOCAL_PART)
# An address such as 10.0.0.1 is no host name: a last label of digits alone is in no zone (RFC 1123, 2.1).
_DIGITS = re.compile(r"[0-9]+")

# To Ansible these are groups, its own or those of the inventories here, or the controller; a host of the name would be
# left out or taken for them.
OTHERWISE = frozenset(
    {"all", "ungrouped", "localhost", "127.0.0.1", "nodes", "enabled", "disabled"}
)  # fmt: skip


def check_instance_name(text: object, field: str = "instance") -> str:
    """Return an instance's name, the customer's e-mail, as it was given. Raises Invalid."""
    given = as_text(text, field)
    local, at, domain = given.partition("@")
    if not at:
        raise Invalid(field, f"{shown(given)} is not an e-mail address: there is no @")
    if len(given) > LONGEST_EMAIL or len(local) > LONGEST_LOCAL_PART:
        raise Invalid(
            field,
            f"{shown(given)} is longer than an e-mail address may be: {LONGEST_EMAIL} characters, "
            f"{LONGEST_LOCAL_PART} of them before the @",
        )
    if _LOCAL_PART.fullmatch(local) is None:
        raise Invalid(
            field,
            f"{shown(given)} is not an e-mail address as it is taken here: before the @, letters, digits and ._%+-, "
            "with a letter, a digit or _ first",
        )
    if "." not in domain or not is_host_name(domain) or _DIGITS.fullmatch(domain.rpartition(".")[2]):
        raise Invalid(
            field, f"{shown(given)} is not an e-mail address: after the @ there is no host name with a dot"
        )
    return given


def check_node_name(text: object, field: str = "node") -> str:
    """Return a node's name as it was given: a host name that means nothing else to Ansible. Raises Invalid."""
    given = check_host_name(text, field)
    if given.lower() in OTHERWISE:
        raise Invalid(field, f"{shown(given)} means something else to Ansible")
    return given


def check_host_name(text: object, field: str) -> str:
    """Return a host name as it was given. Raises Invalid."""
    given = as_text(text, field)
    if not is_host_name(given):
        raise Invalid(
            field,
            f"{shown(given)} is not a host name: letters, digits, dots and dashes, no dot or dash at the beginning or "
            f"the end, at most 63 characters between dots and {LONGEST_HOST_NAME} in all",
        )
    return given


def is_host_name(text: str) -> bool:
    """Whether `text` has the form of a host name."""
    return len(text) <= LONGEST_HOST_NAME and _HOST_NAME.fullmatch(text) is not None


def check_interface(text: object, field: str = "interface") -> str:
    """Return an interface's name as it was given. Raises Invalid."""
    given = as_text(text, field)
    try:
        return check_name(given, field)
    except InvalidInput as error:
        raise Invalid(error.field, error.problem) from None


def as_text(value: object, field: str) -> str:
    """Return a text without what Ansible notes on texts. Raises Invalid for anything else."""
    if not isinstance(value, str):
        raise Invalid(field, "is not a text")
    return "".join(value)
