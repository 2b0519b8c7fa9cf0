from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import (
    BrokenFile,
    parse,
    parse_beside,
    render,
    render_for_wg,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import Refused
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import ZERO_KEY
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config, Device, Hooks, Peer
from tests.unit.plugins.module_utils.generated import (
    by_key,
    configs,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
)

HEAD = f"[Interface]\nPrivateKey = {private_key(1)}\n"


@given(configs())
def test_what_is_rendered_is_parsed_again(config: Config) -> None:
    assert parse(render(config)) == config


@given(configs())
def test_one_meaning_has_one_text(config: Config) -> None:
    turned = dict(reversed(list(config.peers.items())))
    again = Config(
        **{**{name: getattr(config, name) for name in config.__dataclass_fields__}, "peers": turned}
    )
    assert render(again) == render(config)
    assert render(parse(render(config))) == render(config)


@given(configs(), configs(), st.booleans())
def test_what_runs_makes_no_difference_to_what_a_file_says(config: Config, other: Config, same: bool) -> None:
    live = {name: there._replace(endpoint="192.0.2.7:4000") for name, there in config.peers.items()}
    text = render(config)
    assert parse_beside(text, live if same else other.peers) == parse(text)
    lines = text.splitlines(keepends=True)
    if config.peers:
        without_the_last = "".join(lines[: max(i for i, line in enumerate(lines) if line == "[Peer]\n")])
        assert parse_beside(without_the_last, live) == parse(without_the_last)
        added = text + "PersistentKeepalive = 77\n"
        assert parse_beside(added, live) == parse(added)


@given(configs(), st.integers(0, 2**32))
def test_the_spelling_of_a_file_does_not_matter(config: Config, seed: int) -> None:
    rng = Random(seed)

    def respelt(line: str) -> str:
        name, equals, value = line.partition("=")
        if line.startswith("#") or not equals:
            return line
        name = rng.choice([name, name.upper(), name.lower(), f"\t {name}"])
        return f"{name}{equals}{value}" + rng.choice(["", " ", "\t", " # a word", "#"])

    end = rng.choice(["\n", "\r\n"])
    text = end.join(respelt(line) for line in render(config).rstrip("\n").split("\n"))
    assert parse(text + rng.choice(["", end, end + end])) == config


def test_a_file_by_hand() -> None:
    text = f"""
# my tunnel
[interface]   # the server
  privatekey={private_key(1)}
Address = 10.0.0.1/24, fd00::1/64 10.0.1.1/24
ADDRESS = 10.0.2.1
listenport = 51820 # udp
DNS = 192.0.2.53, example.com
MTU=1380
FwMark = 0xca6c
SaveConfig = true
PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo a=b
PostUp = second
PreDown = third   # not this

[PEER]
PublicKey = {key(1)}
AllowedIPs = 10.0.0.2/32
AllowedIPs = 10.0.0.3/32,10.0.0.2/32, fd00::2
PersistentKeepalive = off
[Peer]
PublicKey = {key(2)}
PublicKey = {key(3)}
PresharedKey = {preshared_key(3)}
Endpoint = vpn.example.com:51820
PersistentKeepalive = 10
PersistentKeepalive = 25
AllowedIPs =
"""
    assert parse(text) == Config(
        private_key=private_key(1),
        listen_port=51820,
        addresses=("10.0.0.1/24", "fd00::1/64", "10.0.1.1/24", "10.0.2.1/32"),
        peers=by_key(
            peer(1, "10.0.0.2/32", "10.0.0.3/32", "fd00::2/128"),
            peer(
                3, preshared_key=preshared_key(3), persistent_keepalive=25, endpoint="vpn.example.com:51820"
            ),
        ),
        mtu=1380,
        fwmark=0xCA6C,
        table="auto",
        hooks=Hooks(post_up=("iptables -A FORWARD -i %i -j ACCEPT; echo a=b", "second"), pre_down=("third",)),
        dns=("192.0.2.53, example.com",),
    )


def test_save_config_is_dropped() -> None:
    assert "SaveConfig" not in render(parse(f"{HEAD}SaveConfig = true\n"))


def test_wg_masks_host_bits_and_so_do_we() -> None:
    text = f"{HEAD}[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0.2/24, fd00::2/64, 10.0.0.9/24\n"
    assert parse(text).peers[key(1)].allowed_ips == ("10.0.0.0/24", "fd00::/64")


@pytest.mark.parametrize("word", ["off", "Off", "OFF", "0"])
def test_off_in_any_case(word: str) -> None:
    config = parse(f"{HEAD}FwMark = {word}\n[Peer]\nPublicKey = {key(1)}\nPersistentKeepalive = {word}\n")
    assert (config.fwmark, config.peers[key(1)].persistent_keepalive) == (0, 0)


def test_the_last_of_two_sections_for_a_peer_wins_where_they_differ() -> None:
    text = f"{HEAD}[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0.2/32\n" * 1
    text += f"[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0.3/32\n"
    assert parse(text).peers == by_key(peer(1, "10.0.0.3/32"))


BROKEN = [
    ("", 1, "no [Interface] section"),
    ("\n\n", 3, "no [Interface] section"),
    (f"[Peer]\nPublicKey = {key(1)}\n", 3, "no [Interface] section"),
    (f"PrivateKey = {private_key(1)}\n[Interface]\n", 1, "stands before the first section"),
    (f"{HEAD}[Interface]\n", 3, "is not a section that belongs here"),
    (f"{HEAD}\n[Friends]\n", 4, "is not a section that belongs here"),
    (f"{HEAD}[Peer\n", 3, "is not a section that belongs here"),
    (f"{HEAD}nonsense\n", 3, "is neither a section nor key = value"),
    (f"{HEAD}Listen Port = 5\n", 3, "is neither a section nor key = value"),
    (f"{HEAD}= 5\n", 3, "is neither a section nor key = value"),
    (f"{HEAD}ListenPrt = 5\n", 3, "'listenprt' is not a key of [Interface]"),
    (f"[Interface]\nPrivatKey = {private_key(1)}\n", 2, "is not a key of [Interface]"),
    (f"{HEAD}PublicKey = {key(1)}\n", 3, "is not a key of [Interface]"),
    (f"{HEAD}ListenPort = \n", 3, "ListenPort"),
    (f"{HEAD}ListenPort = 65536\n", 3, "ListenPort"),
    (f"{HEAD}\n\nAddress = 10.0.0.1/33\n", 5, "Address"),
    (f"{HEAD}MTU = big\n", 3, "MTU"),
    (f"{HEAD}FwMark = 0xx\n", 3, "FwMark"),
    (f"{HEAD}Table = a b\n", 3, "Table"),
    ("# x\n[Interface]\n# y\nPrivateKey = tooshort\n", 4, "PrivateKey"),
    (f"{HEAD}# BEGIN vpnfleet routes, table auto\nTable = off\n", 5, "the file ends without"),
    (f"{HEAD}[Peer]\n", 3, "PublicKey: is missing"),
    (f"{HEAD}[Peer]\nAllowedIPs = 10.0.0.1/32\n", 3, "PublicKey: is missing"),
    (f"{HEAD}[Peer]\nPublicKey = x\n", 3, "PublicKey"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\nAllowedIPs = 10.0.0/8\n", 3, "AllowedIPs"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\nPresharedKey = {preshared_key(1)[:-1]}\n", 3, "PresharedKey"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\nPersistentKeepalive = yes\n", 3, "PersistentKeepalive"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\nEndpoint = nowhere\n", 3, "Endpoint"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\nMTU = 5\n", 5, "'mtu' is not a key of a [Peer]"),
    (f"{HEAD}[Peer]\nPublicKey = {key(1)}\n{preshared_key(1)}\n", 5, "is n"),
    (f"{HEAD}Address = {'1' * 1_000_000}\n", 3, "Address"),
    (f"{HEAD}[{'x' * 1_000_000}\n", 3, "is not a section that belongs here"),
    (f"{HEAD}{'x' * 1_000_000} = 1\n", 3, "is not a key of [Interface]"),
]


@pytest.mark.parametrize(("text", "line", "problem"), BROKEN, ids=[problem for _t, _l, problem in BROKEN])
def test_a_broken_file_is_refused_by_the_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(BrokenFile) as caught:
        parse(text)
    message = str(caught.value)
    assert caught.value.line == line
    assert message.startswith(f"line {line}: ")
    assert problem in message
    assert len(message) < 200
    for secret in (private_key(1), preshared_key(1)):
        assert secret[:12].lower() not in message.lower()


@given(configs(), st.data())
def test_a_file_cut_short_is_never_taken_for_one_with_another_key_or_port(
    config: Config, data: st.DataObject
) -> None:
    text = render(config)
    cut = data.draw(st.integers(0, len(text)))
    try:
        found = parse(text[:cut])
    except BrokenFile:
        return
    assert found.private_key in (config.private_key, None)
    assert found.peers.keys() <= config.peers.keys()


@given(
    st.text()
    | st.lists(st.sampled_from([*HEAD.split("\n"), "[Peer]", f"PublicKey = {key(1)}", "a = b", "#"]))
)
def test_anything_at_all_is_parsed_or_broken(text: str | list[str]) -> None:
    text = text if isinstance(text, str) else "\n".join(text)
    try:
        parse(text)
    except BrokenFile as error:
        line = error.line
    else:
        line = 1
    assert 1 <= line <= text.count("\n") + 1


# ---- what stands in the file


def test_routes_stand_in_the_file_without_the_cost_of_wg_quick() -> None:
    config = Config(
        private_key(1), 51820, ("10.0.0.1/24",),
        by_key(peer(1, "10.0.0.2/32"), peer(2, "10.9.0.0/24", "fd09::/64"), peer(3, "10.8.0.0/24")),
    )  # fmt: skip
    lines = render(config).split("\n")
    assert lines.count("Table = off") == 1
    assert "PostUp = printf 'route replace %s dev %i\\n' 10.8.0.0/24 10.9.0.0/24 | ip -4 -batch -" in lines
    assert "PostUp = printf 'route replace %s dev %i\\n' fd09::/64 | ip -6 -batch -" in lines
    assert parse(render(config)).hooks == Hooks()


def test_routes_of_a_numbered_table() -> None:
    config = Config(private_key(1), 51820, ("10.0.0.1/24",), by_key(peer(1, "10.0.0.2/32")), table="7")
    assert "PostUp = printf 'route replace %s dev %i table 7\\n' 10.0.0.2/32 | ip -4 -batch -" in render(
        config
    )


@given(configs())
def test_the_file_asks_wg_quick_for_no_routes_of_its_own(config: Config) -> None:
    outside = [line for line in render(config).split("\n") if line.startswith("Table")]
    assert outside == ["Table = off"]


# ---- for wg syncconf


@given(configs(), st.data())
def test_the_text_for_wg_is_complete(config: Config, data: st.DataObject) -> None:
    device = Device(private_key(1), public_key_of(private_key(1)), 51820, config.fwmark, config.peers)
    named = data.draw(st.sets(st.sampled_from(sorted(config.peers)))) if config.peers else set()
    text = render_for_wg(device, dict.fromkeys(named, "192.0.2.1:1"))
    head, *sections = text.split("[Peer]\n")
    assert head == (
        f"[Interface]\nPrivateKey = {private_key(1)}\nListenPort = 51820\nFwMark = {config.fwmark or 'off'}\n"
    )
    assert len(sections) == len(config.peers)
    for section, one in zip(sections, config.peers.values(), strict=True):
        parted = (line.partition(" = ") for line in section.splitlines())
        fields = {name: value for name, _, value in parted}
        # Each is written even where there is none: an older wg leaves an omitted one as it was.
        assert fields["PublicKey"] == one.public_key
        assert fields["PresharedKey"] == (one.preshared_key or ZERO_KEY)
        assert fields["PersistentKeepalive"] == str(one.persistent_keepalive or "off")
        assert fields.get("AllowedIPs", "") == ",".join(one.allowed_ips)
        assert ("Endpoint" in fields) is (one.public_key in named)


@pytest.mark.parametrize(("secret", "port"), [(None, 51820), (private_key(1), 0)])
def test_no_text_for_wg_that_would_lose_the_key_or_the_port(secret: str | None, port: int) -> None:
    with pytest.raises(Refused, match="would remove both"):
        render_for_wg(Device(secret, None, port, 0, {key(1): Peer(key(1), ())}), {})


def test_neither_configs_nor_devices_show_their_secrets() -> None:
    peers = by_key(peer(1, preshared_key=preshared_key(1)))
    for shown in (Config(private_key(1), 1, (), peers), Device(private_key(1), key(9), 1, 0, peers)):
        assert private_key(1) not in repr(shown)
        assert preshared_key(1) not in repr(shown)
