"""The page with the drift of a fleet: what is in it, what is not, and that it does nothing."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.drift_page import (
    MOST_ENTRIES,
    MOST_NODES,
    MOST_OF_A_KIND,
    page,
)
from tests.unit.plugins.plugin_utils.registry.drift_reports import (
    fleet,
    issue,
    lost,
    mismatched,
    missing,
    node,
    unknown,
)
from tests.unit.plugins.plugin_utils.registry.simulated_names import DE, FR, NL

MOMENT = "2026-11-27 14:55:04"
EVIL = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt; &amp; &#60;",
    "]]><!-- -->",
    "\u202eevil\u202c \u2066name\u2069 \u200f",
    "\x1b[31mred\x07\x00\x7f\x9b",
    "\ud800 alone",
    "javascript:alert(1)",
]


class Reader(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and the text of it."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), tag
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += ("|" if self.rows[-1][-1] else "") + data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def made(*nodes: dict[str, Any], instances: dict[str, str] | None = None, **summary: Any) -> Reader:
    return Reader(page(fleet(nodes, **summary), MOMENT, instances or {}, "drift.json"))


# ---- what is told


def test_a_fleet_in_order() -> None:
    read = made(node(NL), node(DE))
    assert "No drift on 2 nodes" in read.text
    assert "2026-11-27 14:55:04 UTC" in read.text
    assert [row[:2] for row in read.rows[1:]] == [[DE, "✓ in order"], [NL, "✓ in order"]]
    assert "section" not in [tag for tag, _ in read.elements]
    assert "reconcile" not in read.text


def test_trouble_comes_first_and_is_linked() -> None:
    read = made(
        node("at1.example.com"),
        node(DE, unknown_peers=[unknown("wg4")]),
        node(
            NL,
            missing_peers=[missing("wg1", "a"), missing("wg1", "b")],
            interface_issues=[issue("wg1", "mtu", 1380, 1420)],
        ),
        lost(FR, "node fr1.example.com cannot be reached: No route to host", reachable=False),
    )
    overview = read.rows[1:5]
    assert [row[:6] for row in overview] == [
        [FR, "✕ unreachable", "–", "–", "–", "–"],
        [NL, "▲ 3 differences", "1", "2", "0", "0"],
        [DE, "▲ 1 difference", "0", "0", "0", "1"],
        ["at1.example.com", "✓ in order", "0", "0", "0", "0"],
    ]
    anchors = {attributes["id"] for tag, attributes in read.elements if tag == "section"}
    links = [str(attributes["href"]) for tag, attributes in read.elements if tag == "a"]
    assert {f"#{anchor}" for anchor in anchors} == {link for link in links if link.startswith("#")}
    assert len(anchors) == 3
    assert "Drift on 2 of 4 nodes, 1 not read" in read.text
    assert "No route to host" in read.text


def test_every_kind_in_words() -> None:
    good, bad = "a" * 43 + "=", "b" * 43 + "="
    read = made(
        node(
            NL,
            interface_issues=[
                issue("wg10", "mtu", 1380, 1420),
                issue("wg9", "interface", "up", "missing"),
                issue("wg9", "file", "as running", "missing"),
                issue("wg3", "interface", "absent", "up"),
                issue("wg10", "addresses", ["10.8.0.1/24", "fd00::1/64"], []),
                issue("wg10", "enabled at boot", True, False),
                issue("wg10", "public_key", good, bad),
                issue("wg10", "listen_port", 51820, 9),
            ],
            missing_peers=[missing("wg9", "Ann's phone", "10.8.9.2/32", "fd00::2/128")],
            mismatched_peers=[
                mismatched(
                    "wg10",
                    "laptop",
                    allowed_ips=(["10.8.0.2/32", "10.8.0.3/32"], ["10.8.0.2/32"]),
                    persistent_keepalive=(25, 0),
                    preshared_key=("sha256:41f0", None),
                )
            ],
            unknown_peers=[unknown("wg10", "192.0.2.4:51820"), unknown("wg2")],
        ),
        instances={"wg10": "ann@example.com"},
    )
    rows = [row for row in read.rows if row and row[0].startswith("wg")]
    ann = "wg10|ann@example.com"
    assert rows[:8] == [
        ["wg3", "Interface", "not there", "up"],
        ["wg9", "Interface", "up", "missing"],
        ["wg9", "Config file", "says what runs", "missing"],
        [ann, "Public key", good, bad],
        [ann, "Listen port", "51820", "9"],
        [ann, "Addresses", "10.8.0.1/24| |fd00::1/64", "none"],
        [ann, "MTU", "1380", "1420"],
        [ann, "Comes up at boot", "yes", "no"],
    ]
    assert rows[8][1].startswith("Ann's phone|")
    assert rows[8][2] == "10.8.9.2/32| |fd00::2/128"
    assert [row[2:] for row in rows[9:12]] == [
        ["Allowed IPs", "10.8.0.2/32| |10.8.0.3/32", "10.8.0.2/32"],
        ["Keepalive", "every 25 s", "off"],
        ["Preshared key (fingerprint)", "sha256:41f0", "none"],
    ]
    assert [row[2:] for row in rows[12:]] == [
        ["10.99.0.7/32", "nowhere", "off"],
        ["10.99.0.7/32", "192.0.2.4:51820", "off"],
    ]
    for told in ("Interface issues: 8", "Missing peers: 1", "Mismatched peers: 1", "Unknown peers: 2"):
        assert told in read.text


def test_what_is_known_of_nodes_besides_is_told_when_it_is_known() -> None:
    plain = made(node(NL), node(DE))
    assert "Last seen" not in plain.text
    assert "Reachable" not in plain.text
    read = made(
        node(NL, reachable=True),
        lost(FR, "no", reachable=False, last_seen=None),
        lost(DE, "wg answers half a dump", reachable=True, last_seen="2026-11-27 14:55:02"),
        unreachable_nodes=1,
    )
    assert [(row[0], row[1], *row[6:]) for row in read.rows[1:4]] == [
        (DE, "✕ not read", "yes", "2026-11-27 14:55:02"),
        (FR, "✕ unreachable", "no", "–"),
        (NL, "✓ in order", "yes", "2026-11-27 14:55:02"),
    ]
    assert "could not be read (1 unreachable)" in read.text


# ---- what to run


def commands(*nodes: dict[str, Any]) -> list[list[str]]:
    text = page(fleet(nodes), MOMENT, {}, "drift.json")
    found = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    return [shlex.split(unescape(line)) for block in found for line in block.splitlines()]


def test_what_repairs_it() -> None:
    playbook = ["ansible-playbook", "-i", "inventories/production", "playbooks/reconcile.yml", "-e"]
    assert commands(node(NL, missing_peers=[missing("wg1", "a")])) == [
        [*playbook, f"node={NL}", "--check", "--diff"],
        [*playbook, f"node={NL}"],
    ]
    many = [unknown("wg1") for _ in range(12)]
    assert commands(node(NL, unknown_peers=[*many, unknown("wg2")]))[1] == [
        *playbook, f"node={NL}", "-e", "remove_unknown=true", "-e", "max_removals=12",
    ]  # fmt: skip
    assert "max_removals=3" not in str(commands(node(NL, unknown_peers=many[:3])))
    # Where some are left out, nobody knows of which interface they are.
    cut = node(NL, unknown_peers=many, truncated=True)
    cut["summary"]["unknown_count"] = 4000
    assert "max_removals=4000" in commands(cut)[1]
    (again,) = commands(lost(NL, "no"))
    assert again[3:] == ["playbooks/drift.yml", "-e", f"node={NL}"]


@pytest.mark.parametrize("name", ["a b", "$(id)", "-e", "a;b", "a'b", '"', "{{ 7*7 }}", "@file"])
def test_what_is_to_be_run_is_safe_in_a_shell_and_in_extra_vars(name: str) -> None:
    for words in commands(node(name, missing_peers=[missing("wg1", "a")])):
        given = words[words.index("-e") + 1]
        assert given.startswith('{"node": ')
        assert name in given.replace('\\"', '"')


# ---- what it does not do


def test_what_comes_from_outside_is_text() -> None:
    read = made(
        *(
            node(
                text,
                interface_issues=[issue(text, text, text, [text])],
                missing_peers=[missing("wg1", text, text)],
                mismatched_peers=[mismatched("wg1", text, preshared_key=(text, text))],
                unknown_peers=[unknown(text, text)],
                last_seen=text,
            )
            for text in EVIL
        ),
        lost("lost", "\n".join(EVIL)),
        instances={"wg1": EVIL[0]},
    )
    assert {tag for tag, _ in read.elements} == {
        "html", "meta", "title", "style", "main", "h1", "h2", "h3", "p", "a", "dl", "div", "dt", "dd", "table",
        "caption", "thead", "tbody", "tr", "th", "td", "span", "bdi", "section", "pre", "code",
    }  # fmt: skip
    attributes = {name for _, found in read.elements for name in found}
    assert attributes == {
        "lang", "charset", "http-equiv", "content", "name", "href", "class", "id", "scope", "aria-label",
        "aria-labelledby", "tabindex", "data-is",
    }  # fmt: skip
    for tag, found in read.elements:
        if tag == "a":
            assert re.fullmatch(r"drift\.json|#node-[0-9a-f-]{36}", str(found["href"]))
    for text in EVIL[:7]:
        assert text in "".join(read.texts)
    whole = page(fleet([node(text) for text in EVIL]), MOMENT, {}, "drift.json")
    whole.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", whole)
    assert "\\u202eevil" in whole


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = page(fleet([node(NL, unknown_peers=[unknown("wg1")])]), MOMENT, {}, "drift.json")
    read = Reader(text)
    (policy,) = [
        str(found["content"])
        for tag, found in read.elements
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
    assert not re.search(r"://|@import|url\(|src=|\son\w+=|\sstyle=", text)


# ---- how it stands


def test_the_order_is_lasting() -> None:
    nodes = [
        node(
            f"n{number}.example.com",
            missing_peers=[missing(f"wg{one}", f"peer {one % 3}") for one in (10, 9, 2, 2)],
            interface_issues=[
                issue("wg2", "file", "as running", "missing"),
                issue("wg2", "interface", "up", "down"),
            ],
        )
        for number in range(5)
    ]
    told = page(fleet(nodes), MOMENT, {}, "drift.json")
    for one in nodes:
        random.Random(7).shuffle(one["missing_peers"])
        one["interface_issues"].reverse()
    assert page(fleet(reversed(nodes)), MOMENT, {}, "drift.json") == told


def test_each_table_says_what_its_columns_are() -> None:
    read = made(node(NL, missing_peers=[missing("wg1", "a")], unknown_peers=[unknown("wg1")]))
    heads = [found["scope"] for tag, found in read.elements if tag == "th"]
    assert set(heads) == {"col", "row"}
    names = [found for tag, found in read.elements if tag == "td" and "data-is" not in found]
    assert names == []
    assert len({found["id"] for _, found in read.elements if "id" in found}) == 2


# ---- how large it may be


def test_a_page_stays_small_and_says_what_it_leaves_out() -> None:
    peers = [missing(f"wg{number % 50 + 1}", f"device {number}") for number in range(10_000)]
    text = page(fleet([node(NL, missing_peers=peers), node(DE)]), MOMENT, {}, "drift.json")
    assert len(text) < 100_000
    read = Reader(text)
    assert "Missing peers: 10,000" in read.text
    assert "9,900 of 10,000 are left out here" in read.text
    assert "The rest is in drift.json" in read.text
    assert len([row for row in read.rows if row[0].startswith("wg")]) == MOST_OF_A_KIND


def test_what_the_data_leave_out_themselves_is_counted() -> None:
    peers = [missing("wg1", f"device {number}") for number in range(150)]
    one = node(NL, missing_peers=peers, truncated=True)
    one["summary"] |= {"missing_count": 5000, "total_issues": 5000}
    read = made(one)
    assert (
        "4,900 of 5,000 are left out here; 150 of them are in the data, and all of them are counted"
        in read.text
    )


def test_a_large_fleet_with_much_drift() -> None:
    nodes = [
        node(
            f"n{number}.example.com", missing_peers=[missing("wg1", "x" * 10_000, *["10.0.0.0/8"] * 100)] * 60
        )
        for number in range(MOST_NODES + 300)
    ]
    text = page(fleet(nodes), MOMENT, {}, "drift.json")
    assert len(text) < 5_000_000
    read = Reader(text)
    assert len([row for row in read.rows if row[0] == "wg1"]) == MOST_ENTRIES
    assert "300 more nodes left out here" in read.text
    assert "1,800 more nodes with trouble are left out here" in read.text
    assert "x" * 301 not in text
