from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import (
    IncompleteDump,
    Traffic,
    parse_dump,
    parse_traffic,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config, Device, Peer
from tests.unit.plugins.module_utils.generated import configs, key, preshared_key, private_key, public_key_of

PEER_LINES = [
    f"{key(1)}\t(none)\t192.0.2.7:40123\t10.0.0.2/32,fd00::2/128\t1763820000\t1024\t2048\t25",
    f"{key(2)}\t{preshared_key(2)}\t[2001:db8::1]:5\t(none)\t0\t0\t0\toff",
]
INTERFACE_LINE = f"{private_key(1)}\t{public_key_of(private_key(1))}\t51820\t0xca6c"
EXPECTED = Device(
    private_key(1),
    public_key_of(private_key(1)),
    51820,
    0xCA6C,
    {
        key(1): Peer(key(1), ("10.0.0.2/32", "fd00::2/128"), None, 25, "192.0.2.7:40123"),
        key(2): Peer(key(2), (), preshared_key(2), 0, "[2001:db8::1]:5"),
    },
)


def lines_of(device: Device) -> list[str]:
    """What wg writes for a device, as show.c does."""

    def none(text: str | None) -> str:
        return text or "(none)"

    fwmark = f"0x{device.fwmark:x}" if device.fwmark else "off"
    first = f"{none(device.private_key)}\t{none(device.public_key)}\t{device.listen_port}\t{fwmark}"
    return [
        first,
        *(
            "\t".join(
                [
                    one.public_key, none(one.preshared_key), none(one.endpoint), none(",".join(one.allowed_ips)),
                    "1763820000", "1", "2", str(one.persistent_keepalive or "off"),
                ]
            )
            for one in device.peers.values()
        ),
    ]  # fmt: skip


def test_a_dump_of_one_interface() -> None:
    assert parse_dump("\n".join([INTERFACE_LINE, *PEER_LINES]) + "\n", "wg0") == {"wg0": EXPECTED}


def test_a_dump_of_all() -> None:
    text = "".join(f"wg0\t{line}\n" for line in [INTERFACE_LINE, *PEER_LINES])
    text += "wg1\t(none)\t(none)\t0\toff\n"
    assert parse_dump(text) == {"wg0": EXPECTED, "wg1": Device(None, None, 0, 0, {})}
    assert parse_traffic(text) == {"wg0": {key(1): Traffic(1763820000, 1024, 2048), key(2): Traffic(0, 0, 0)}}


def test_no_interfaces() -> None:
    assert parse_dump("") == {}
    assert parse_traffic("") == {}


@given(st.dictionaries(st.sampled_from(["wg0", "wg1", "a b", "wg2"]), configs(), max_size=3))
def test_what_wg_writes_is_read_again(found: dict[str, Config]) -> None:
    devices = {
        name: Device(one.private_key, one.private_key and public_key_of(one.private_key), one.listen_port or 0,
                     one.fwmark, one.peers)
        for name, one in found.items()
    }  # fmt: skip
    text = "".join(f"{name}\t{line}\n" for name, device in devices.items() for line in lines_of(device))
    assert parse_dump(text) == devices
    for name, device in devices.items():
        assert parse_dump("".join(f"{line}\n" for line in lines_of(device)), name) == {name: device}


@given(st.data())
def test_half_a_line_is_refused(data: st.DataObject) -> None:
    text = "".join(f"wg0\t{line}\n" for line in [INTERFACE_LINE, *PEER_LINES])
    cut = data.draw(st.integers(1, len(text) - 1))
    assume(text[cut - 1] != "\n")
    with pytest.raises(IncompleteDump) as caught:
        parse_dump(text[:cut])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        f"wg0\t{PEER_LINES[0]}\n",  # a peer of no interface
        f"wg0\t{INTERFACE_LINE}\nwg1\t{PEER_LINES[0]}\n",
        f"wg0\t{INTERFACE_LINE}\n\n",
        f"wg0\t{INTERFACE_LINE}\textra\n",
        f"wg0\t{private_key(1)}\t{key(1)}\tport\toff\n",
        f"wg0\t{private_key(1)}\t{key(1)}\t1\tmark\n",
        f"wg0\t{INTERFACE_LINE}\nwg0\t{PEER_LINES[0][:-2]}often\n",
        f"wg0\t{INTERFACE_LINE}\nwg0\t{PEER_LINES[0].rpartition(chr(9))[0]}\n",
        "interface: wg0\n  public key: x\n",
        "Unable to access interface wg0: Operation not permitted\n",
    ],
)
def test_what_is_no_dump_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(IncompleteDump) as caught:
        parse_dump(text)
    assert private_key(1) not in str(caught.value)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "_LAST", None)
    dump.remember()


WHOLE = "".join(f"{line}\n" for line in [INTERFACE_LINE, *PEER_LINES])


@pytest.mark.usefixtures("remembered")
def test_a_dump_that_is_remembered_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = parse_dump(WHOLE, "wg0")
    assert first == {"wg0": EXPECTED}
    with monkeypatch.context() as patch:
        patch.setattr(dump, "_peer", lambda _fields: pytest.fail("parsed again"))
        again = parse_dump(WHOLE, "wg0")
    assert again == first
    # Nor is an interface that is gone in between taken for the one that was, or the other way round.
    assert parse_dump("", "wg0") == {}
    assert parse_dump(f"{INTERFACE_LINE}\n", "wg0")["wg0"].peers == {}
    assert parse_dump(WHOLE, "wg0") == first


@pytest.mark.usefixtures("remembered")
def test_no_more_than_so_many_are_remembered() -> None:
    for number in range(dump._MOST_INTERFACES + 2):
        name = f"wg{number}"
        assert parse_dump(WHOLE, name) == {name: EXPECTED}
        assert dump._LAST is not None
        assert name in dump._LAST
        assert len(dump._LAST) <= dump._MOST_INTERFACES
