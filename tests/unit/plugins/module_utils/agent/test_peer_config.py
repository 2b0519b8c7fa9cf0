"""Configurations: what is understood, what is refused and by which line, and the quick reading as the slow one."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.peer_config import (
    NOTHING,
    parse_known,
    parse_peer_config,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key

A, B, C = peer_key("a"), peer_key("b"), peer_key("c")
PSK = preshared_key("a")


def section(key: str, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {key}", *lines]) + "\n\n"


def test_all_that_may_stand_there() -> None:
    found = parse_peer_config(
        f"\n# of the fleet, Zürich\n[Interface]\r\nPrivateKey={private_key('n')}\r\nlistenport = 51820\r\n"
        "FwMark = 0x10\r\n"
        f"[PEER]\n\tPublicKey\t=\t{A} # a laptop\nPresharedKey = {PSK}\n"
        "AllowedIPs = fd00::2, 10.0.0.2/32\nAllowedIPs = 10.9.0.0/24\nPersistentKeepalive = 25\n"
        "Endpoint = [fd00:1::1]:5\n"
        f"[Peer]\nPublicKey = {B}\nPersistentKeepalive = OFF\nPresharedKey = {'A' * 43}=\n"
    )
    assert (found.private_key, found.listen_port, found.fwmark) == (private_key("n"), 51820, 16)
    assert found.peers == {
        A: Peer(A, ("10.0.0.2/32", "10.9.0.0/24", "fd00::2/128"), PSK, 25, "[fd00:1::1]:5"),
        B: Peer(B, ()),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no [Peer]"),
        ("# nothing\n", "no [Peer]"),
        (f"[Interface]\nPrivateKey = {private_key('n')}\n", "no [Peer]"),
        ("hello", "line 1: is neither"),
        ("PublicKey = x\n", "line 1: stands before"),
        (section(A) + "[Peer]\n", "line 4: [Peer]: PublicKey: is missing"),
        (section(A) + section("x"), "line 4: [Peer]: PublicKey: is not a WireGuard key"),
        (section("A" * 43 + "="), "all-zero"),
        (section(A) + section(A), "line 4: " + A + " is there twice"),
        (section(A, f"PublicKey = {B}"), "line 3: 'publickey' is there twice"),
        (section(A, "AllowedIPs = 10.0.0.2/24"), "line 1: [Peer]: AllowedIPs: '10.0.0.2/24' has host bits"),
        (section(A, "AllowedIPs = 10.0.0.2, 10.0.0.2/32"), "a network is there twice"),
        (section(A, "AllowedIPs = 10.0.0.0/33"), "prefix length"),
        (section(A, "AllowedIPs = +10.0.0.0/8"), "is not an IPv4"),
        (section(A, "AllowedIPs = 10.0.0.2/32") + section(B, "AllowedIPs = 10.0.0.2/32"), "overlap"),
        (section(A, "AllowedIPs = 10.0.0.0/8") + section(B, "AllowedIPs = 10.0.0.2/32"), "overlap"),
        (section(A, "PersistentKeepalive = 70000"), "PersistentKeepalive"),
        (section(A, "Endpoint = "), "Endpoint: is empty"),
        (section(A, "Endpoint = x"), "is not host:port"),
        (section(A, "PresharedKey = "), "PresharedKey: is empty"),
        (section(A, "PresharedKey = abc"), "PresharedKey: is not"),
        (section(A, "Colour = red"), "line 3: 'colour' is not a key of [Peer]"),
        (section(A, "PostUp = touch /tmp/x"), "line 3: 'postup' is a word of wg-quick's"),
        ("[Interface]\nAddress = 10.0.0.1/24\n" + section(A), "line 2: 'address' is a word of wg-quick's"),
        ("[Interface]\nSaveConfig = true\n" + section(A), "line 2: 'saveconfig' is a word"),
        ("[Interface]\nJc = 4\n" + section(A), "line 2: 'jc' is not a key of [Interface]"),
        ("[Interface]\nListenPort = 0\n" + section(A), "line 2: ListenPort"),
        ("[Interface]\nListenPort = 1\nListenPort = 1\n" + section(A), "line 3: 'listenport' is there twice"),
        ("[Interface]\nPrivateKey = x\n" + section(A), "line 2: PrivateKey: is not"),
        (section(A) + "[Interface]\n","line 4:"),
        ("[Interface]\n[Interface]\n" + section(A), "line 2:"),
        ("[Server]\n", "line 1:"),
        (section(A, "AllowedIPs = 10.0.0.2/32\0"), "line 3: holds a NUL byte"),
        (section(A, "# a\0comment"), "line 3: holds a NUL byte"),
        (section(A, "AllowedIPs = 10.0.\x0b0.2/32"), "line 3: holds a control character"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, told: str) -> None:
    for parse in (parse_peer_config, lambda text: parse_known(text, NOTHING)):
        with pytest.raises(InvalidInput) as caught:
            parse(text)
        assert told in str(caught.value)


@pytest.mark.parametrize("secret", [PSK[:-1], f"{PSK} x", private_key("n") + "="])
def test_a_broken_secret_is_not_repeated(secret: str) -> None:
    for text in (section(A, f"PresharedKey = {secret}"), f"[Interface]\nPrivateKey = {secret}\n{section(A)}"):
        with pytest.raises(InvalidInput) as caught:
            parse_peer_config(text)
        assert secret[:20] not in str(caught.value)


def test_one_bad_key_in_ten_thousand_is_named_by_its_line() -> None:
    keys = [peer_key(str(number)) for number in range(10_000)]
    keys[7000] = "x" + keys[7000][1:-2] + "=="
    text = "".join(section(key) for key in keys)
    with pytest.raises(InvalidInput, match=r"line 21001: \[Peer\]: PublicKey"):
        parse_known(text, NOTHING)


def test_the_quick_reading_is_the_slow_one() -> None:
    texts = [
        section(A, "AllowedIPs = 10.0.0.2/32") + section(B, "AllowedIPs = 10.0.0.3/32"),
        section(B, "AllowedIPs = 10.0.0.3/32") + section(A, "AllowedIPs = 10.0.0.2/32"),
        section(A, "AllowedIPs = 10.0.0.3/32") + section(B, "AllowedIPs = 10.0.0.2/32"),
        "[Interface]\nListenPort = 5\n\n" + section(C) + section(A, "AllowedIPs = 10.0.0.0/24"),
        section(A).rstrip("\n"),
        section(A) + "[peer]\nPublicKey = " + B + "\n",
        section(A).replace("\n", "\r\n") + section(B),
        section(A) + section(B) + "# end",
    ]
    known = NOTHING
    for text in (*texts, *reversed(texts), *texts):
        found, known = parse_known(text, known)
        assert found == parse_peer_config(text)


def test_what_was_good_alone_is_refused_together() -> None:
    _found, known = parse_known(section(A, "AllowedIPs = 10.0.0.2/32") + section(B), NOTHING)
    for text, told in (
        (section(A, "AllowedIPs = 10.0.0.2/32") + section(B, "AllowedIPs = 10.0.0.2/32"), "overlap"),
        (section(A, "AllowedIPs = 10.0.0.2/32") + section(B, "AllowedIPs = 10.0.0.0/30"), "overlap"),
        (section(B) + section(B), "line 4: " + B + " is there twice"),
        (section(B) + section(A, "AllowedIPs = 10.0.0.2/32") + section(A), "is there twice"),
        (section(B) + section(A, "[Interface]", "ListenPort = 5"), "line 6:"),
    ):
        with pytest.raises(InvalidInput, match=told.replace("+", "[+]")):
            parse_known(text, known)
