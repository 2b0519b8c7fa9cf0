"""Drift as a diff: before is what runs, after is what should."""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_diff import (
    MOST_ENTRIES,
    diffs,
    lines,
)
from tests.unit.plugins.plugin_utils.registry.drift_reports import (
    issue,
    mismatched,
    missing,
    node,
    unknown,
)
from tests.unit.plugins.plugin_utils.registry.simulated_names import NL


def test_nothing_where_all_is_in_order() -> None:
    assert diffs(NL, node(NL)) == []


def test_every_kind() -> None:
    gone, stranger = missing("wg10", "phone", "10.8.0.2/32", "fd00::2/128"), unknown("wg9", "192.0.2.4:51820")
    other = mismatched("wg9", "laptop", allowed_ips=(["10.8.0.3/32"], []), persistent_keepalive=(25, 0))
    found = diffs(
        NL,
        node(
            NL,
            interface_issues=[issue("wg9", "mtu", 1380, 1420), issue("wg9", "enabled at boot", True, False)],
            missing_peers=[gone],
            mismatched_peers=[other],
            unknown_peers=[stranger],
        ),
    )
    assert [(one["before_header"], one["after_header"]) for one in found] == [
        (f"{NL} wg9",) * 2,
        (f"{NL} wg10",) * 2,
    ]
    assert lines(found) == [
        f"--- before: {NL} wg9",
        f"+++ after: {NL} wg9",
        "@@ -1,4 +1,3 @@",
        "-mtu: 1420",
        "-enabled at boot: false",
        f"-peer: {stranger['public_key']} allowed_ips 10.99.0.7/32 endpoint 192.0.2.4:51820",
        f"-peer: {other['public_key']} allowed_ips (none) persistent_keepalive 0 (laptop)",
        "+mtu: 1380",
        "+enabled at boot: true",
        f"+peer: {other['public_key']} allowed_ips 10.8.0.3/32 persistent_keepalive 25 (laptop)",
        f"--- before: {NL} wg10",
        f"+++ after: {NL} wg10",
        "@@ -0,0 +1 @@",
        f"+peer: {gone['public_key']} allowed_ips 10.8.0.2/32, fd00::2/128 (phone)",
    ]


def test_what_moves_the_cursor_is_spelt_out() -> None:
    (one,) = diffs(NL, node(NL, missing_peers=[missing("wg9", "a\x1b[2Jb\n+c\u202e", "10.8.0.2/32")]))
    assert one["after"].endswith("(a\\u001b[2Jb\\u000a+c\\u202e)\n")
    assert one["after"].count("\n") == 1


def test_it_is_bounded() -> None:
    peers = [missing("wg9", "x" * 1000) for _ in range(MOST_ENTRIES + 50)]
    found = diffs(NL, node(NL, missing_peers=peers))
    assert found[-1]["after"] == "(50 more differences)\n"
    assert sum(len(one["after"]) for one in found) < MOST_ENTRIES * 200
