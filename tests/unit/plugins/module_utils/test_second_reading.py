from __future__ import annotations

import subprocess

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.dump import IncompleteDump, parse_dump
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.second_reading import (
    check_whole,
    peers_of,
    require_whole,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Device
from tests.unit.plugins.module_utils.generated import (
    by_key,
    key,
    peer,
    preshared_key,
    private_key,
    public_key_of,
)

HEAD = f"{private_key(1)}\t{public_key_of(private_key(1))}\t51820\toff"
PEERS = [
    f"{key(1)}\t(none)\t192.0.2.7:40123\t10.0.0.2/32,fd00::2/128\t1763820000\t1024\t2048\t25",
    f"{key(2)}\t{preshared_key(2)}\t[2001:db8::1]:5\t10.0.0.3/32\t0\t0\t0\toff",
    f"{key(3)}\t(none)\t(none)\t(none)\t0\t0\t0\toff",
]
DUMP = "".join(f"{line}\n" for line in (HEAD, *PEERS))
KEYS = "".join(f"{key(number)}\n" for number in (1, 2, 3))
ALL = "".join(f"{name}\t{line}\n" for name in ("wg1", "wg2") for line in (HEAD, *PEERS))
ALL_KEYS = "".join(f"{name}\t{key(number)}\n" for name in ("wg1", "wg2") for number in (1, 2, 3))


@pytest.mark.parametrize("end", ["", "\n"], ids=["as cut", "with a line's end"])
@pytest.mark.parametrize(
    ("dump", "keys", "interface"), [(DUMP, KEYS, "wg1"), (ALL, ALL_KEYS, None)], ids=["one", "all"]
)
def test_wherever_a_dump_is_cut_no_peer_is_overlooked(
    dump: str, keys: str, interface: str | None, end: str
) -> None:
    """An interface that is not named at all is another matter: `reading` sees that it is there."""
    whole = parse_dump(dump, interface)
    undetected = []
    for cut in range(len(dump)):
        try:
            found = parse_dump(dump[:cut] + end, interface)
            check_whole(found, peers_of(keys, interface))
        except IncompleteDump:
            continue
        assert {name: one.peers.keys() for name, one in found.items()} == {
            name: whole[name].peers.keys() for name in found
        }
        undetected.append(dump[cut:])
    # Nothing at all, a whole interface, and the last digit of the last number of a line.
    assert len(undetected) <= (2 if interface else 6)


def test_one_interface_is_asked_for_alone_and_several_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(argv: list[str], check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        assert not check
        assert timeout
        return subprocess.CompletedProcess(argv, 0, KEYS if argv[2] == "wg1" else ALL_KEYS, "")

    monkeypatch.setattr(source, "run", run)
    whole = parse_dump(ALL)
    require_whole({})
    require_whole({"wg1": whole["wg1"]})
    require_whole(whole)
    assert asked == [["wg", "show", "wg1", "peers"], ["wg", "show", "all", "peers"]]


OF_ANOTHER = "Unable to access interface wg9: Protocol not supported\n"
OF_THIS = "Unable to access interface wg2: No such device\n"


@pytest.mark.parametrize("one", [True, False], ids=["one", "all"])
@pytest.mark.parametrize(
    ("code", "stderr", "told"),
    [
        (0, "", True),
        (0, OF_ANOTHER, True),
        (1, OF_ANOTHER, True),
        (1, "", False),
        (127, "", False),
        (127, "sh: 1: wg: not found", False),
        (-9, "", False),
        (1, "Unable to list interfaces: Operation not permitted\n", False),
        (1, OF_ANOTHER + "Killed\n", False),
        (1, OF_THIS, False),
        (0, OF_THIS, False),
        (0, OF_ANOTHER + OF_THIS, False),
    ],
)
def test_what_wg_does_not_tell_of_is_no_interface_without_peers(
    monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, told: bool, one: bool
) -> None:
    """The dump was cut behind the line of the interface, so that both readings would agree."""
    monkeypatch.setattr(
        source, "run", lambda argv, **_how: subprocess.CompletedProcess(argv, code, "", stderr)
    )
    cut = {"wg2": device()} if one else {"wg1": device(), "wg2": device()}
    if told:
        require_whole(cut)
        return
    with pytest.raises(IncompleteDump, match=rf"did not tell of .*wg2.* \(exit code {code}\)"):
        require_whole(cut)


def device(*numbers: int) -> Device:
    return Device(None, None, 0, 0, by_key(*(peer(number) for number in numbers)))


@pytest.mark.parametrize(
    ("there", "named", "whole"),
    [
        (device(), {}, True),
        (device(1, 2), {"wg1": {key(2), key(1)}, "wg9": {key(3)}}, True),
        (device(1), {"wg1": {key(1), key(2)}}, False),
        (device(1, 2), {"wg1": {key(1)}}, False),
        (device(1), {}, False),
        (device(1), {"wg1": {key(2)}}, False),
    ],
)
def test_both_readings_have_to_name_the_same_peers(
    there: Device, named: dict[str, set[str]], whole: bool
) -> None:
    if whole:
        check_whole({"wg1": there}, named)
        return
    with pytest.raises(IncompleteDump, match="of wg1 and wg show peers of"):
        check_whole({"wg1": there}, named)
