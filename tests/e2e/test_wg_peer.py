"""wg_peer on a real node, by the contract, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.contract import (
    A_ALIVE,
    A_SECRET,
    FILE,
    SECRET,
    SINGLES,
    A,
    B,
    C,
    Row,
    Table,
    changes,
    check_endpoints,
    check_file_alone,
    check_peers_named,
    check_what_is_said,
    check_what_runs,
    numbered,
    run_table,
)
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer, peer_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node


def peers(name: str, asked: dict[str, Any], runs: list[dict[str, Any]] | None = None, **more: Any) -> Row:
    """A row of wg_peer on an interface that runs as BASE; `runs` are the peers that there are in the end."""
    return changes(name, asked, module="wg_peer", runs={} if runs is None else {"peers": runs}, **more)


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {"public_key": peer_key(name), **fields}


GONE = {"state": "absent"}

ROWS = numbered([
    peers("added", C, [A, B, C]),
    peers("added with all fields", {**C, "preshared_key": SECRET, "persistent_keepalive": 30,
                                    "endpoint": "192.0.2.9:1234"},
          [A, B, {**C, "preshared_key": SECRET, "persistent_keepalive": 30, "endpoint": "192.0.2.9:1234"}]),
    peers("added without networks", key("c"), [A, B, peer("c")]),
    peers("there already", B, changed=False),
    peers("named alone", key("a"), changed=False),
    peers("networks changed", peer("b", "10.<n>.0.30/32", "fd00:<n>::30/128"),
          [A, peer("b", "10.<n>.0.30/32", "fd00:<n>::30/128")]),
    peers("networks taken away", peer("b"), [A, peer("b")]),
    peers("other fields stay", key("a", allowed_ips=["10.<n>.0.22"]),
          [peer("a", "10.<n>.0.22/32", preshared_key=SECRET, persistent_keepalive=25), B],
          given={"peers": [{**A_SECRET, "persistent_keepalive": 25}, B]}),
    peers("preshared key added", key("a", preshared_key=SECRET), [A_SECRET, B]),
    peers("preshared key removed by an empty text", key("a", preshared_key=""), [A, B],
          given={"peers": [A_SECRET, B]}),
    peers("preshared key removed by zeros", key("a", preshared_key="A" * 43 + "="), [A, B],
          given={"peers": [A_SECRET, B]}),
    peers("keepalive added", key("a", persistent_keepalive=25), [A_ALIVE, B]),
    peers("keepalive removed", key("a", persistent_keepalive=0), [A, B], given={"peers": [A_ALIVE, B]}),
    peers("endpoint set", key("a", endpoint="192.0.2.2:9"), [{**A, "endpoint": "192.0.2.2:9"}, B],
          given={"peers": [{**A, "endpoint": "192.0.2.1:9"}, B]}),
    peers("endpoint there already", key("a", endpoint="192.0.2.1:9"), changed=False,
          given={"peers": [{**A, "endpoint": "192.0.2.1:9"}, B]}),
    peers("removed", key("b", state="absent"), [A]),
    peers("the last one removed", key("a", state="absent"), [], given={"peers": [A]}),
    peers("removed, and was not there", key("c", state="absent"), changed=False),
    peers("many at once", {"peers": [C, key("b", state="absent"), key("a", persistent_keepalive=25)]}, [A_ALIVE, C]),
    peers("many at once, all to be removed", {"state": "absent", "peers": [key("a"), key("b"), key("c")]}, []),
    peers("a network passed on in one call", {"peers": [
        peer("c", "10.<n>.0.2/32"), peer("a", "fd00:<n>::2/128")]},
        [peer("a", "fd00:<n>::2/128"), B, peer("c", "10.<n>.0.2/32")]),
    peers("networks swapped in one call", {"peers": [
        peer("a", "10.<n>.0.3/32"), peer("b", "10.<n>.0.2/32")]},
        [peer("a", "10.<n>.0.3/32"), peer("b", "10.<n>.0.2/32")]),
    peers("network inherited from one removed in the same call",
          {"peers": [{**key("b"), **GONE}, peer("c", "10.<n>.0.3/32")]}, [A, peer("c", "10.<n>.0.3/32")]),
    peers("route added", peer("c", "10.1<n>.0.0/24"), [A, B, peer("c", "10.1<n>.0.0/24")],
          routes=(("10.1<n>.0.0/24", "main"),)),
    peers("route removed", key("c", state="absent"), [A, B],
          given={"peers": [A, B, peer("c", "10.1<n>.0.0/24", "fd01:<n>::/64")]}),
    peers("route in the interface's table", peer("c", "10.1<n>.0.0/24"), [A, peer("c", "10.1<n>.0.0/24")],
          given={"table": "<table>", "peers": [A]},
          routes=(("10.<n>.0.2/32", "<table>"), ("fd00:<n>::2/128", "<table>"), ("10.1<n>.0.0/24", "<table>"))),
    # the file follows, whatever it was
    peers("file deleted", C, [A, B, C], then=f"rm {FILE}"),
    peers("file broken", C, [A, B, C], then=f"echo nonsense >>{FILE}"),
    peers("file lacks what runs", B, then=f"sed -i '/^[[]Peer/,$d' {FILE}"),
    peers("a peer that only the file still has", key("c", state="absent"), [A, B],
          then=f"printf '[Peer]\\nPublicKey = {peer_key('c')}\\n' >>{FILE}"),
    peers("a peer that only runs", key("x", state="absent"), [A, B],
          then=f"wg set wg<n> peer {peer_key('x')} allowed-ips 10.<n>.0.77/32"),
    peers("everything else stays", C, [A, {**B, "endpoint": "192.0.2.1:7"}, C], given={
        "mtu": 1333, "fwmark": 17, "table": "off", "peers": [A, {**B, "endpoint": "192.0.2.1:7"}],
        "post_up": ["true"]}),
    Row("removed from an interface that is not there", key("a", state="absent"), module="wg_peer", changed=False,
        gone=True),
])  # fmt: skip
_ALL = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
_LEFT = pytest.mark.parametrize("row", [row for row in ROWS if not row.gone], ids=lambda row: row.name)


@pytest.fixture(scope="module")
def table(lab: Lab, node: Node) -> Iterator[Table]:
    yield run_table(lab, node, ROWS, SINGLES)
    empty(node)


def test_check_mode_touches_nothing(table: Table) -> None:
    assert table.after_check == table.before


def test_a_second_run_touches_nothing(table: Table) -> None:
    assert table.after_again == table.after_real


@_ALL
def test_what_is_said(table: Table, row: Row) -> None:
    check_what_is_said(table, row)
    check_peers_named(table, row, table.real[row.name].answer)


@_ALL
def test_what_runs_is_what_was_asked_for(table: Table, row: Row) -> None:
    check_what_runs(table, row)


@_LEFT
def test_endpoints_are_those_asked_for(table: Table, row: Row) -> None:
    check_endpoints(table, row)


@_LEFT
def test_the_file_alone_brings_the_same_back(table: Table, row: Row) -> None:
    check_file_alone(table, row)


def test_the_answer_names_the_interface(table: Table) -> None:
    row = ROWS[0]
    answer = table.real[row.name].answer
    runs = table.after_real.interfaces[row.interface]
    assert (answer["interface"], answer["public_key"], answer["listen_port"]) == (
        row.interface,
        runs.public_key,
        runs.listen_port,
    )
