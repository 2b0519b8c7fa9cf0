"""The contract that every change by a module keeps, checked on a real node for a table of cases.

Each row is run in check mode, for real, and once more. Check mode touches nothing and says what the real run says,
the second run changes nothing, what runs is what was asked for, and the file alone brings the same interface up again.
Each row has an interface of its own, so that a whole table is run together.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.e2e.ansible_run import Result, Run, Task, play, script, task
from tests.e2e.node_state import READ_STATE, Interface, NodeState, Peer, parse_state, read_state
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer, peer_key, preshared_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

Parameters = dict[str, Any]

# Stands for a value that the node chooses.
ANY = "ANY"


# What stands in angle brackets is replaced by a value of the row's own (see fill).
A = peer("a", "10.<n>.0.2/32", "fd00:<n>::2/128")
B = peer("b", "10.<n>.0.3/32")
C = peer("c", "10.<n>.0.4/32")
SECRET = preshared_key("a")
A_SECRET = {**A, "preshared_key": SECRET}
A_ALIVE = {**A, "persistent_keepalive": 25}
SUBNETS = ["10.<n>.0.1/24", "fd00:<n>::1/64"]
BASE: Parameters = {"private_key": "<key>", "listen_port": "<port>", "addresses": SUBNETS, "peers": [A, B]}

# An interface that someone has made by hand, with another key and peer, and no file.
BY_HAND = f"""
wireguard-go wg<n> >/dev/null 2>&1 </dev/null
echo <key2> >/run/key
wg set wg<n> private-key /run/key listen-port <port2> peer {peer_key("c")} allowed-ips 10.<n>.0.4/32
rm /run/key
ip address add 10.<n>.0.9/24 dev wg<n>
ip link set wg<n> up
"""
FILE = "/etc/wireguard/wg<n>.conf"
REMOVE_LINK = "ip link delete wg<n>; while [ -e /run/wireguard/wg<n>.sock ]; do sleep 0.05; done"


@dataclass(frozen=True)
class Row:
    """One case. `given` is what earlier parameters of wg_instance made, `then` what happened to it by hand."""

    name: str
    asked: Parameters
    given: Parameters | None = None
    then: str = ""
    module: str = "wg_instance"
    changed: bool = True
    gone: bool = False  # nothing is left
    runs: Parameters = field(default_factory=dict)  # what shall run, where `given` and `asked` do not say it
    routes: tuple[tuple[str, str], ...] = ()
    by_hand: tuple[tuple[str, str], ...] = ()  # those of `routes` that someone else has set
    hooks: str = ""  # what the hooks have written
    number: int = 0

    @property
    def interface(self) -> str:
        return f"wg{self.number}"

    @property
    def parameters(self) -> Parameters:
        """What the module is called with."""
        key = "name" if self.module == "wg_instance" else "interface"
        return {key: self.interface, **fill(self.asked, self.number)}

    @property
    def wanted(self) -> Parameters:
        """What shall run, as parameters of wg_instance."""
        asked = self.asked if self.module == "wg_instance" else {}
        merged: Parameters = fill({**(self.given or {}), **asked, **self.runs}, self.number)
        return merged


def changes(name: str, asked: Parameters, **more: Any) -> Row:
    """A row that begins with an interface which runs as BASE."""
    return Row(name, asked, given={**BASE, **more.pop("given", {})}, **more)


def numbered(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with a number (of two digits) for its interface, addresses and port."""
    assert len(rows) <= 90
    return [replace(row, number=number) for number, row in enumerate(rows, 10)]


def fill(value: Any, number: int) -> Any:
    """`value` with the placeholders of a row filled in."""
    if isinstance(value, str):
        if value in ("<port>", "<port2>"):
            return {"<port>": 20000, "<port2>": 30000}[value] + number
        for word, text in (
            ("<n>", str(number)),
            ("<key>", private_key(f"row {number}")),
            ("<key2>", private_key(f"second {number}")),
            ("<unclamped key>", _unclamped(private_key(f"row {number}"))),
            ("<port>", str(20000 + number)),
            ("<port2>", str(30000 + number)),
            ("<port as text>", str(20000 + number)),
            ("<table>", str(1000 + number)),
        ):
            value = value.replace(word, text)
        return value
    if isinstance(value, Mapping):
        return {key: fill(item, number) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(item, number) for item in value]
    return value


def _unclamped(key: str) -> str:
    """The same private key before WireGuard clears the bits that do not count."""
    raw = bytearray(base64.b64decode(key))
    raw[0] |= 7
    raw[31] |= 128
    return base64.b64encode(bytes(raw)).decode()


# -- running a table


@dataclass(frozen=True)
class Served:
    """What a module answered for one row, and the diff (empty when there is none)."""

    answer: dict[str, Any]
    diff: list[dict[str, str]]


@dataclass(frozen=True)
class Table:
    """A table that was run: the node's state before and after each of the three runs, the answers by the rows' names,
    and the state after the interfaces were taken away and brought up from their files."""

    before: NodeState
    after_check: NodeState
    after_real: NodeState
    after_again: NodeState
    after_boot: NodeState
    check: dict[str, Served]
    real: dict[str, Served]
    again: dict[str, Served]


@dataclass(frozen=True)
class Form:
    """How the rows are put to the module: the tasks of one round, and the answers out of the playbook's run."""

    tasks: Callable[[Sequence[Row], str, bool], list[Task]]
    answers: Callable[[Sequence[Row], Run, str], dict[str, Served]]


def _batch(rows: Sequence[Row], name: str, check: bool) -> list[Task]:
    return [task(name, "wg_instance", {"instances": [row.parameters for row in rows]}, check)]


def _from_batch(rows: Sequence[Row], run: Run, name: str) -> dict[str, Served]:
    result = run[name]
    assert not result.failed, result.message
    entries = {entry["name"]: entry for entry in result.answer["instances"]}
    diffs: dict[str, list[dict[str, str]]] = {}
    for diff in result.diff:
        diffs.setdefault(diff["before_header"], []).append(diff)
    return {row.name: Served(entries[row.interface], diffs.get(row.interface, [])) for row in rows}


def _singles(rows: Sequence[Row], name: str, check: bool) -> list[Task]:
    return [task(f"{name}: {row.name}", row.module, row.parameters, check) for row in rows]


def _from_singles(rows: Sequence[Row], run: Run, name: str) -> dict[str, Served]:
    results: dict[str, Result] = {row.name: run[f"{name}: {row.name}"] for row in rows}
    failed = {name: result.message for name, result in results.items() if result.failed}
    assert not failed, failed
    return {name: Served(result.answer, result.diff) for name, result in results.items()}


#: All rows in one call of wg_instance.
BATCH = Form(_batch, _from_batch)
#: A call for each row.
SINGLES = Form(_singles, _from_singles)

# The interfaces go without a word to anyone, as at a power cut, and wg-quick alone brings them back.
_BOOT = """
for link in $(ls /sys/class/net | grep '^wg'); do ip link delete $link; done
tries=200; while [ -n "$(ls /run/wireguard)" ] && [ $tries -gt 0 ]; do tries=$((tries - 1)); sleep 0.05; done
for file in /etc/wireguard/*.conf; do wg-quick up $(basename $file .conf); done
"""


def run_table(lab: Lab, node: Node, rows: Sequence[Row], form: Form) -> Table:
    """Make what the rows start from, and run them. Leaves the node full."""
    empty(node)
    node.write("/run/read-state", READ_STATE)
    given = [{"name": row.interface, **fill(row.given, row.number)} for row in rows if row.given is not None]
    first = play(lab, node, [task("given", "wg_instance", {"instances": given})])["given"]
    assert not first.failed, first.message
    by_hand = "\n".join(fill(row.then, row.number) for row in rows if row.then)
    node.run(["bash", "-euc", by_hand], timeout=300)

    tasks = [script("before", "sh /run/read-state")]
    for name in ("check", "real", "again"):
        tasks += [*form.tasks(rows, name, name == "check"), script(f"after {name}", "sh /run/read-state")]
    run = play(lab, node, tasks)
    before, after_check, after_real, after_again = (
        parse_state(run[name].stdout) for name in ("before", "after check", "after real", "after again")
    )
    node.run(["bash", "-euc", _BOOT], timeout=300)
    return Table(
        before,
        after_check,
        after_real,
        after_again,
        after_boot=read_state(node),
        check=form.answers(rows, run, "check"),
        real=form.answers(rows, run, "real"),
        again=form.answers(rows, run, "again"),
    )


# -- what every row keeps


def check_what_is_said(table: Table, row: Row) -> None:
    """Check mode and the real run say the same; the second run says that there was nothing to do."""
    check, real, again = table.check[row.name], table.real[row.name], table.again[row.name]
    assert real.answer["changed"] is row.changed
    assert check.answer["changed"] is row.changed
    assert check.diff == real.diff
    assert len(real.diff) == (1 if row.changed else 0)
    assert all(diff["before"] != diff["after"] for diff in real.diff)
    assert again.answer["changed"] is False
    assert again.diff == []


def check_peers_named(table: Table, row: Row, answer: Mapping[str, Any]) -> None:
    """The peers that the answer names are those that changed on the node."""
    before, after = (state.interfaces.get(row.interface) for state in (table.before, table.after_real))
    was, now = (state.peers if state else {} for state in (before, after))
    assert sorted(answer["peers_added"]) == sorted(now.keys() - was.keys())
    assert sorted(answer["peers_removed"]) == sorted(was.keys() - now.keys())
    touched = {
        key
        for key in now.keys() & was.keys()
        if now[key] != was[key] or now[key].endpoint != was[key].endpoint
    }
    assert sorted(answer["peers_updated"]) == sorted(touched)


def check_what_runs(table: Table, row: Row) -> None:
    """The interface, its file and what its hooks wrote are as asked for; or nothing is left."""
    state = table.after_real
    interface, file, link = state.of(row.interface)
    if row.gone:
        assert (interface, file, link) == (None, None, None)
        assert f"{row.interface}.sock" not in state.sockets
        assert row.interface not in table.after_boot.interfaces
    else:
        wanted = _expected(row)
        assert interface is not None
        assert _comparable(interface, wanted) == wanted
        assert file is not None
        assert (file.mode, file.owner) == ("600", "root")
    assert [path for path in state.files if path.startswith(f"/etc/wireguard/.{row.interface}")] == []
    written = state.files.get(f"/run/hooks/{row.interface}")
    assert (written.text if written else "") == fill(row.hooks, row.number)


def check_endpoints(table: Table, row: Row) -> None:
    """Peers have the endpoints that were asked for, and no others, live and from the file."""
    asked = {fields["public_key"]: fields.get("endpoint") for fields in row.wanted.get("peers", ())}
    for state in (table.after_real, table.after_boot):
        peers = state.interfaces[row.interface].peers
        assert {key: there.endpoint for key, there in peers.items()} == asked


def check_file_alone(table: Table, row: Row) -> None:
    """What wg-quick made of the file is what ran before."""
    before = table.after_real.interfaces[row.interface]
    by_hand = {(network, name) for network, name in fill(row.by_hand, row.number)}
    assert table.after_boot.interfaces[row.interface] == replace(before, routes=before.routes - by_hand)


def _expected(row: Row) -> Interface:
    """What shall run, out of the parameters alone."""
    wanted = row.wanted
    return Interface(
        private_key=wanted["private_key"],
        public_key=None,
        listen_port=wanted["listen_port"],
        fwmark=wanted.get("fwmark", 0),
        peers={
            fields["public_key"]: Peer(
                frozenset(fields["allowed_ips"]),
                fields.get("preshared_key"),
                fields.get("persistent_keepalive", 0),
            )
            for fields in wanted.get("peers", ())
        },
        up=True,
        mtu=wanted.get("mtu", 1420),  # that of eth0 less 80
        addresses=frozenset(wanted.get("addresses", ())),
        routes=frozenset((network, name) for network, name in fill(row.routes, row.number)),
    )


def _comparable(found: Interface, wanted: Interface) -> Interface:
    """`found` without what nobody asked for."""
    return replace(
        found,
        public_key=None,
        private_key=ANY if wanted.private_key == ANY else found.private_key,
        listen_port=wanted.listen_port if str(wanted.listen_port) == ANY else found.listen_port,
    )
