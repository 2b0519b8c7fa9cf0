# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the collection, run for whoever asks the agent instead of by Ansible over SSH."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift, info, instances, peers
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.arguments import (
    checked,
    hidden,
    require_own_folder,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.argument_spec import (
    drift_spec,
    info_spec,
    instance_spec,
    peer_spec,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.packed import parameters
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import scrub


class Module(NamedTuple):
    """A module: its argument spec, and its work, which takes parameters, check mode and diff mode."""

    spec: Callable[[], Dict[str, Any]]
    run: Callable[[Dict[str, Any], bool, bool], Dict[str, Any]]


def _info(params: Dict[str, Any], _check_mode: bool, _with_diff: bool) -> Dict[str, Any]:
    return info.run(params)


MODULES = {
    "wg_drift": Module(drift_spec, drift.run),
    "wg_info": Module(info_spec, _info),
    "wg_instance": Module(instance_spec, instances.run),
    "wg_peer": Module(peer_spec, peers.run),
}


def run(name: str, arguments: Any, check_mode: bool, with_diff: bool) -> Dict[str, Any]:
    """What the module `name` would exit with: ``failed`` and ``msg`` are in it when it fails.

    Raises KeyError for an unknown name."""
    module = MODULES[name]
    spec = module.spec()
    try:
        params = parameters(checked(arguments, spec))
        require_own_folder(params)
        answer = module.run(params, check_mode, with_diff)
    except (WireGuardError, OSError) as error:
        answer = {"failed": True, "msg": str(error)}
    cleaned: Dict[str, Any] = scrub(answer, hidden(arguments, spec))
    return cleaned
