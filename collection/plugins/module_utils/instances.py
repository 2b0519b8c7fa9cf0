# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the module wg_instance."""

from __future__ import annotations

from typing import Any, Dict, List, Set, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.converge import converge
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    INSTANCE_FIELDS,
    Desired,
    check_instance,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.results import (
    PEER_LISTS,
    bound,
    diffs,
    instance_result,
    scrub,
    secrets_of,
)

# Beside a list, these are the defaults of its elements.
COMMON = ("state", "enabled", "purge_peers", "max_removals", "config_dir", "mtu", "table")


def run(params: Dict[str, Any], check_mode: bool, with_diff: bool) -> Dict[str, Any]:
    """Converge the instances of `params` and return the module's answer.

    ``failed`` and ``msg`` are in it when an instance could not be served; the others were. Raises InvalidInput or
    another WireGuardError when nothing was done at all.
    """
    wanted, rejected = _wanted(params)
    outcomes = converge(wanted, check_mode)
    results = [instance_result(outcome) for outcome in outcomes] + rejected
    secrets: Set[str] = secrets_of(
        [state for outcome in outcomes for state in (outcome.before, outcome.wanted)]
    )
    secrets.update(desired.private_key for desired in wanted if desired.private_key)
    bound(results, PEER_LISTS)
    answer: Dict[str, Any] = {
        "changed": any(result["changed"] for result in results),
        "instances": results,
    }
    if params.get("instances") is None:
        answer.update(results[0])
    failed = [result for result in results if "error" in result]
    if failed:
        answer["failed"] = True
        answer["msg"] = "; ".join(f"{result['name']}: {result['error']}" for result in failed[:10])
        if len(failed) > 10:
            answer["msg"] += f"; and {len(failed) - 10} more"
        if len(results) > 1:
            answer["msg"] = f"{len(failed)} of {len(results)} instances failed. " + answer["msg"]
    warnings = [outcome.warning for outcome in outcomes if outcome.warning]
    if warnings:
        answer["warnings"] = warnings
    if with_diff:
        answer["diff"] = diffs(outcomes)
    cleaned: Dict[str, Any] = scrub(answer, secrets)
    return cleaned


def _wanted(params: Dict[str, Any]) -> Tuple[List[Desired], List[Dict[str, Any]]]:
    """The instances asked for, and answers for those whose parameters are wrong: each stands for itself, so that one
    customer's bad row does not hold up the others."""
    batch = params.get("instances")
    if batch is None:
        if params.get("name") is None:
            raise InvalidInput("", "one of name, instances and src is needed")
        return [check_instance({key: params.get(key) for key in INSTANCE_FIELDS}, "")], []
    single = [key for key in INSTANCE_FIELDS if key not in COMMON and params.get(key) is not None]
    if single:
        raise InvalidInput(single[0], "goes with a single instance, not beside instances or src")
    if not isinstance(batch, list):
        raise InvalidInput("instances", "is not a list")
    common = {key: params[key] for key in COMMON if params.get(key) is not None}
    wanted: List[Desired] = []
    rejected: List[Dict[str, Any]] = []
    for index, fields in enumerate(batch):
        field = f"instances[{index}]"
        try:
            if not isinstance(fields, dict):
                raise InvalidInput(field, "is not a mapping")
            given = {key: value for key, value in fields.items() if value is not None}
            wanted.append(check_instance({**common, **given}, field))
        except InvalidInput as error:
            name = fields.get("name") if isinstance(fields, dict) else None
            rejected.append(_rejected(name if isinstance(name, str) else field, error))
    return wanted, rejected


def _rejected(name: str, error: InvalidInput) -> Dict[str, Any]:
    return {
        "name": name[:60],
        "state": None,
        "changed": False,
        "public_key": None,
        "listen_port": None,
        "peers_added": [],
        "peers_updated": [],
        "peers_removed": [],
        "steps": [],
        "error": str(error),
    }
