"""wg_instance on a real node, by the contract: one call for all rows, and calls for single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e import wg_node
from tests.e2e.contract import (
    A_ALIVE,
    A_SECRET,
    ANY,
    BASE,
    BATCH,
    BY_HAND,
    FILE,
    REMOVE_LINK,
    SECRET,
    SINGLES,
    SUBNETS,
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
from tests.e2e.wireguard_keys import peer, peer_key, preshared_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node

ROWS = numbered([
    Row("from nothing", BASE),
    Row("from nothing, all fields", {
        **BASE, "mtu": 1300, "fwmark": 51, "table": "<table>",
        "peers": [{**A_SECRET, "persistent_keepalive": 25, "endpoint": "192.0.2.7:4444"}, B],
    }, routes=(("10.<n>.0.2/32", "<table>"), ("fd00:<n>::2/128", "<table>"), ("10.<n>.0.3/32", "<table>"))),
    Row("IPv6 alone", {**BASE, "addresses": ["fd00:<n>::1/64"], "peers": [peer("a", "fd00:<n>::2/128")]}),
    Row("no peers, no addresses", {"private_key": "<key>", "listen_port": "<port>"}),
    Row("a peer without networks", {**BASE, "peers": [peer("a")]}),
    Row("key and port chosen", {"addresses": SUBNETS, "peers": [A]}, runs={"private_key": ANY, "listen_port": ANY}),
    Row("key and port kept", {"addresses": SUBNETS, "peers": [A]}, given=BASE, runs={"peers": [A]}),
    changes("unchanged", BASE, changed=False),
    changes("unchanged, in another spelling", {
        **BASE, "listen_port": "<port as text>", "addresses": ["10.<n>.0.1/24", "FD00:<n>:0::1/64"],
        "peers": [{**B, "name": "tablet", "persistent_keepalive": 0},
                  peer("a", "FD00:00<n>::2", "10.<n>.0.2", preshared_key="A" * 43 + "=", peer_id="7")],
    }, runs=BASE, changed=False),
    changes("only the name given", {}, changed=False),
    changes("keys compare as WireGuard sees them", {"private_key": "<unclamped key>"}, runs=BASE, changed=False),
    changes("enabled means nothing without systemd", {"enabled": False}, changed=False),
    # peers
    changes("peer added", {"peers": [A, B, C]}),
    changes("peer removed", {"peers": [A]}),
    changes("peer replaced", {"peers": [A, C]}),
    changes("all peers removed on purpose", {"peers": [], "max_removals": 2}),
    changes("peers left alone", {"mtu": 1400}),
    changes("others kept", {"peers": [C], "purge_peers": False}, runs={"peers": [A, B, C]}),
    changes("others kept, nothing new", {"peers": [B], "purge_peers": False}, runs=BASE, changed=False),
    changes("preshared key added", {"peers": [A_SECRET, B]}),
    changes("preshared key removed", {"peers": [A, B]}, given={"peers": [A_SECRET, B]}),
    changes("preshared key changed", {"peers": [{**A, "preshared_key": preshared_key("b")}, B]},
            given={"peers": [A_SECRET, B]}),
    changes("keepalive added", {"peers": [A_ALIVE, B]}),
    changes("keepalive removed", {"peers": [A, B]}, given={"peers": [A_ALIVE, B]}),
    changes("keepalive changed", {"peers": [{**A, "persistent_keepalive": 60}, B]}, given={"peers": [A_ALIVE, B]}),
    changes("networks moved to another peer", {"peers": [peer("a"), peer("b", "10.<n>.0.2/32", "10.<n>.0.3/32")]}),
    changes("networks swapped", {"peers": [
        peer("a", "10.<n>.0.3/32"), peer("b", "10.<n>.0.2/32", "fd00:<n>::2/128")]}),
    changes("networks passed around", {"peers": [
        peer("a", "10.<n>.0.3/32"), peer("b", "10.<n>.0.4/32"), peer("c", "10.<n>.0.2/32")]},
        given={"peers": [peer("a", "10.<n>.0.2/32"), B, C]}),
    changes("network inherited from a removed peer", {"peers": [B, peer("c", "10.<n>.0.2/32")]}),
    changes("endpoint added", {"peers": [A, {**B, "endpoint": "[fd99::7]:4444"}]}),
    changes("endpoint changed", {"peers": [A, {**B, "endpoint": "192.0.2.8:4445"}]},
            given={"peers": [A, {**B, "endpoint": "192.0.2.7:4444"}]}),
    # routes
    changes("route added with its peer", {"peers": [A, B, peer("c", "10.1<n>.0.0/24", "fd01:<n>::/64")]},
            routes=(("10.1<n>.0.0/24", "main"), ("fd01:<n>::/64", "main"))),
    changes("route removed with its peer", {"peers": [A, B]},
            given={"peers": [A, B, peer("c", "10.1<n>.0.0/24", "fd01:<n>::/64")]}),
    changes("route changed with its peer", {"peers": [peer("a", "10.1<n>.9.0/24")]},
            given={"peers": [peer("a", "10.1<n>.0.0/24")]}, routes=(("10.1<n>.9.0/24", "main"),)),
    changes("route follows to the other peer", {"peers": [A, peer("b", "10.1<n>.0.0/24")]},
            given={"peers": [peer("a", "10.1<n>.0.0/24"), B]}, routes=(("10.1<n>.0.0/24", "main"),)),
    changes("routes off", {"table": "off"}, given={"peers": [A, peer("b", "10.1<n>.0.0/24")]}),
    changes("routes on", {"table": "auto"}, given={"peers": [A, peer("b", "10.1<n>.0.0/24")], "table": "off"},
            routes=(("10.1<n>.0.0/24", "main"),)),
    changes("routes into a table", {"table": "<table>"}, given={"peers": [peer("a", "10.1<n>.0.0/24")]},
            routes=(("10.1<n>.0.0/24", "<table>"),)),
    changes("routes out of a table", {"table": "auto"},
            given={"peers": [peer("a", "10.1<n>.0.0/24")], "table": "<table>"}, routes=(("10.1<n>.0.0/24", "main"),)),
    changes("a default route in a table", {"peers": [peer("a", "0.0.0.0/0", "::/0")], "table": "<table>"},
            routes=(("0.0.0.0/0", "<table>"), ("::/0", "<table>"))),
    changes("somebody's own route stays", {"peers": [A]}, then="ip route add 10.1<n>.0.0/24 dev wg<n>",
            routes=(("10.1<n>.0.0/24", "main"),), by_hand=(("10.1<n>.0.0/24", "main"),)),
    changes("a subnet's change changes routes", {"addresses": ["10.1<n>.0.1/24"]},
            given={"peers": [B, peer("c", "10.1<n>.0.4/32")]}, routes=(("10.<n>.0.3/32", "main"),)),
    # the interface
    changes("port changed", {"listen_port": "<port2>"}),
    changes("key changed", {"private_key": "<key2>"}),
    changes("MTU changed", {"mtu": 1280}),
    changes("fwmark set", {"fwmark": 4294967295}),
    changes("fwmark removed", {"fwmark": 0}, given={"fwmark": 7}),
    changes("address added", {"addresses": [*SUBNETS, "10.<n>.9.1/24"]}),
    changes("address removed", {"addresses": ["fd00:<n>::1/64"]},
            routes=(("10.<n>.0.2/32", "main"), ("10.<n>.0.3/32", "main"))),
    changes("addresses replaced", {"addresses": ["10.<n>.0.254/25", "fd00:<n>::99/64"]},
            routes=(("10.<n>.0.2/32", "main"), ("10.<n>.0.3/32", "main"))),
    changes("all at once", {
        "private_key": "<key2>", "listen_port": "<port2>", "mtu": 1280, "fwmark": 9, "addresses": ["10.<n>.7.1/24"],
        "peers": [peer("b", "10.<n>.7.3/32", preshared_key=SECRET, persistent_keepalive=5), C],
    }, routes=(("10.<n>.0.4/32", "main"),)),
    # hooks
    Row("hooks run on the way up", {
        **BASE, "pre_up": ["mkdir -p /run/hooks", "echo pre_up %i >>/run/hooks/%i; test ! -e /sys/class/net/%i"],
        "post_up": ["echo post_up %i >>/run/hooks/%i && test -e /sys/class/net/%i"],
    }, hooks="pre_up wg<n>\npost_up wg<n>\n"),
    changes("hooks written for the next time", {"post_up": ["mkdir -p /run/hooks", "echo late >>/run/hooks/%i"]}),
    changes("hooks run on the way down", {"state": "disconnected"}, given={
        "pre_down": ["mkdir -p /run/hooks; echo pre_down %i >>/run/hooks/%i; test -e /sys/class/net/%i"],
        "post_down": ["test ! -e /sys/class/net/%i && echo post_down %i >>/run/hooks/%i"],
    }, gone=True, hooks="pre_down wg<n>\npost_down wg<n>\n"),
    # what people and accidents do to a node
    changes("file deleted", {}, then=f"rm {FILE}"),
    changes("file deleted, the same asked for", BASE, then=f"rm {FILE}"),
    changes("file broken", {}, then=f"echo nonsense >{FILE}"),
    changes("file empty", BASE, then=f": >{FILE}"),
    changes("file cut off", BASE, then=f"head -c 150 {FILE} >{FILE}.x; mv {FILE}.x {FILE}"),
    changes("file not text", BASE, then=f"head -c 300 /dev/urandom >{FILE}"),
    changes("file edited", BASE, then=f"sed -i '/^[[]Peer/,$d' {FILE}"),
    changes("file with SaveConfig", BASE, then=f"sed -i 's/^ListenPort/SaveConfig = true\\nListenPort/' {FILE}"),
    changes("file readable by all", {}, then=f"chmod 644 {FILE}"),
    changes("file of another user", {}, then=f"chown nobody {FILE}"),
    changes("file behind a link", {}, then=f"mkdir -p /var/wireguard; mv {FILE} /var/wireguard; "
            f"ln -s /var/wireguard/wg<n>.conf {FILE}"),
    changes("half of a file that a killed run left", {"peers": [A]},
            then="echo '[Interf' >/etc/wireguard/.wg<n>.conf.vpnfleet-new"),
    changes("interface gone", {}, then=REMOVE_LINK),
    changes("interface gone, other things asked for", {"peers": [A, C], "mtu": 1300}, then=REMOVE_LINK),
    changes("interface down", {}, then="ip link set wg<n> down"),
    changes("address lost", {}, then="ip address del 10.<n>.0.1/24 dev wg<n>"),
    changes("route lost", {}, given={"peers": [peer("a", "10.1<n>.0.0/24", "fd01:<n>::/64")]},
            then="ip route del 10.1<n>.0.0/24; ip -6 route del fd01:<n>::/64",
            routes=(("10.1<n>.0.0/24", "main"), ("fd01:<n>::/64", "main"))),
    changes("MTU changed by hand", {"mtu": 1420}, then="ip link set wg<n> mtu 1000"),
    changes("peers lost", BASE, then=f"wg set wg<n> peer {peer_key('a')} remove peer {peer_key('b')} remove"),
    changes("peer changed by hand", BASE,
            then=f"wg set wg<n> peer {peer_key('a')} allowed-ips 10.<n>.0.3/32 persistent-keepalive 9"),
    changes("preshared key set by hand", BASE,
            then=f"echo {SECRET} >/run/psk; wg set wg<n> peer {peer_key('b')} preshared-key /run/psk; rm /run/psk"),
    changes("stranger added by hand", BASE, then=f"wg set wg<n> peer {peer_key('x')} allowed-ips 10.<n>.0.77/32"),
    changes("port and fwmark changed by hand", {**BASE, "fwmark": 0}, then="wg set wg<n> listen-port <port2> fwmark 3"),
    Row("hand-made interface taken over", BASE, then=BY_HAND),
    Row("hand-made interface left as it is", {}, then=BY_HAND,
        runs={"private_key": "<key2>", "listen_port": "<port2>", "addresses": ["10.<n>.0.9/24"], "peers": [C]}),
    Row("hand-made file", {"peers": [A, C], "purge_peers": False}, then=f"""cat >{FILE} <<'END'
# the customer is nice
[interface]
PrivateKey=<key>
listenport = <port> # do not change
Address = 10.<n>.0.1/24,fd00:<n>::1/64
Address = 10.<n>.8.1/24
MTU = 1380
Table = off
PostUp = mkdir -p /run/hooks; echo handmade >/run/hooks/%i

[PEER]
PUBLICKEY = {peer_key("b")}
AllowedIPs = 10.<n>.0.3/32
ALLOWEDIPS = 10.1<n>.0.3
PresharedKey = {SECRET}
PersistentKeepalive = 15
END
wg-quick up wg<n>; rm -f /run/hooks/wg<n>""", runs={
        "private_key": "<key>", "listen_port": "<port>", "addresses": [*SUBNETS, "10.<n>.8.1/24"], "mtu": 1380,
        "peers": [A, peer("b", "10.<n>.0.3/32", "10.1<n>.0.3/32", preshared_key=SECRET, persistent_keepalive=15), C],
    }),
    # the way out
    changes("disconnected", {"state": "disconnected"}, gone=True),
    changes("disconnected, the file had vanished", {"state": "disconnected"}, then=f"rm {FILE}", gone=True),
    changes("disconnected, only the file is there", {"state": "disconnected"}, then=REMOVE_LINK, gone=True),
    changes("disconnected, whatever else is asked for", {**BASE, "state": "disconnected"}, gone=True),
    Row("disconnected, nothing there", {"state": "disconnected"}, gone=True, changed=False),
    changes("absent", {"state": "absent"}, gone=True),
    changes("absent, the file was broken", {"state": "absent"}, then=f"echo nonsense >{FILE}", gone=True),
    changes("absent, the file had vanished", {"state": "absent"}, then=f"rm {FILE}", gone=True),
    Row("absent, hand-made", {"state": "absent"}, then=BY_HAND, gone=True),
    Row("absent, nothing there", {"state": "absent"}, gone=True, changed=False),
])  # fmt: skip

# What one call does for many it does for one: of the single calls, every third row will do.
FORMS = {"one call for all": (BATCH, ROWS), "a call for each": (SINGLES, ROWS[::3])}

_FORMS = pytest.mark.parametrize("form", FORMS)


def _each(rows: Callable[[Row], bool] = bool) -> pytest.MarkDecorator:
    """Each row of each form for which `rows` holds."""
    cases = [(form, row) for form, (_, of_form) in FORMS.items() for row in of_form if rows(row)]
    names = [f"{form}: {row.name}" for form, row in cases]
    return pytest.mark.parametrize(("form", "row"), cases, ids=names)


_ALL = _each()
_LEFT = _each(lambda row: not row.gone)


@pytest.fixture(scope="module")
def tables(lab: Lab, node: Node) -> Iterator[dict[str, Table]]:
    """The table as it was run in each form."""
    yield {name: run_table(lab, node, rows, form) for name, (form, rows) in FORMS.items()}
    empty(node)


@_FORMS
def test_check_mode_touches_nothing(tables: dict[str, Table], form: str) -> None:
    assert tables[form].after_check == tables[form].before


@_FORMS
def test_a_second_run_touches_nothing(tables: dict[str, Table], form: str) -> None:
    assert tables[form].after_again == tables[form].after_real


@_ALL
def test_what_is_said(tables: dict[str, Table], form: str, row: Row) -> None:
    table = tables[form]
    check_what_is_said(table, row)
    check, real, again = (answers[row.name].answer for answers in (table.check, table.real, table.again))
    assert check["steps"] == real["steps"]
    assert bool(real["steps"]) is row.changed
    assert again["steps"] == []


@_ALL
def test_the_answer_tells_what_was_done(tables: dict[str, Table], form: str, row: Row) -> None:
    answer = tables[form].real[row.name].answer
    after = tables[form].after_real.interfaces.get(row.interface)
    assert answer["state"] == row.asked.get("state", "present")
    assert answer["public_key"] == (after.public_key if after else None)
    assert answer["listen_port"] == (after.listen_port if after else None)
    check_peers_named(tables[form], row, answer)
    for kind in ("added", "updated", "removed"):
        assert answer[f"peers_{kind}_count"] == len(answer[f"peers_{kind}"])


@_ALL
def test_what_runs_is_what_was_asked_for(tables: dict[str, Table], form: str, row: Row) -> None:
    check_what_runs(tables[form], row)
    if row.asked.get("state") == "absent":
        assert [path for path in tables[form].after_real.files if row.interface in path] == []


@_LEFT
def test_endpoints_are_those_asked_for(tables: dict[str, Table], form: str, row: Row) -> None:
    check_endpoints(tables[form], row)


@_LEFT
def test_the_file_alone_brings_the_same_back(tables: dict[str, Table], form: str, row: Row) -> None:
    check_file_alone(tables[form], row)
