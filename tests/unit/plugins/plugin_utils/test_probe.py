"""What a probe prints, by a real sh on a node made of a folder, and what is understood of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import drift, drift_repair, source
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.config_file import (
    AnotherDigest,
    beside_digest,
    parse_beside,
    render,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    CommandFailed,
    InvalidInput,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.reading import interface_state, read_node
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Config, Unit
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils import probe
from tests.unit.plugins.module_utils.generated import by_key, peer, preshared_key, private_key
from tests.unit.plugins.plugin_utils import folder_node
from tests.unit.plugins.plugin_utils.folder_node import CONFIG, MARK, PEERS, Commands, Node, dump

node = folder_node.node

FILES = {
    "as it runs": (render(CONFIG), 0o600),
    "readable by others": (render(CONFIG), 0o644),
    "other peers": (render(Config(private_key(1), 51820, (), by_key(PEERS[0]))), 0o600),
    "broken": ("[Interface\n", 0o600),
    "empty": ("", 0o600),
    "without a last newline": (render(CONFIG).rstrip("\n"), 0o600),
    "many newlines": (render(CONFIG) + "\n\n\n", 0o600),
    "with marks of others": (f"# {'f' * 32} end\n" + render(CONFIG), 0o600),
    "none": (None, 0o600),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_probe_and_commands_read_the_same(node: Node, name: str) -> None:
    text, mode = FILES[name]
    if text is not None:
        node.file("wg1.conf", text, mode)
    by_probe, by_commands = (read_node(None, read) for read in (node.reading("wg1", "wg7"), Commands(node)))
    for field in ("links", "kinds", "devices", "unreadable", "routes", "default_device"):
        assert getattr(by_probe, field) == getattr(by_commands, field)
    for interface in ("wg1", "wg7"):
        path = f"/etc/wireguard/{interface}.conf"
        assert interface_state(by_probe, interface, path, None) == interface_state(
            by_commands, interface, path, None
        )
    assert by_probe.wireguard() == by_commands.wireguard() == {"wg1"}


def test_a_long_file_is_read_by_its_digest(node: Node) -> None:
    config = Config(
        private_key(1), 51820, (), by_key(*(peer(n, f"10.1.{n >> 8}.{n & 255}/32") for n in range(900)))
    )
    text = render(config)
    assert len(text) > probe.LONG
    path = node.file("wg1.conf", text)
    found = node.reading("wg1").reading.file(str(path))
    assert found is not None
    head, _, peers = text.partition("[Peer]\n")
    assert found == source.File(
        f"{head}[Peer]\n", True, hashlib.sha256(f"[Peer]\n{peers}".encode()).hexdigest()
    )
    assert found.peers_digest is not None
    live = by_key(*(one._replace(endpoint="192.0.2.1:5") for one in config.peers.values()))
    beside = beside_digest(found.text, found.peers_digest, live)
    assert beside.peers is live
    assert dataclasses.replace(beside, peers=config.peers) == parse_beside(text, live) == config
    del live[next(iter(live))]
    with pytest.raises(AnotherDigest):
        beside_digest(found.text, found.peers_digest, live)
    assert node.reading("wg1", whole=True).reading.file(str(path)) == source.File(text, True)
    without = node.file("wg1.conf", "# long\n" * probe.LONG)
    found = node.reading("wg1").reading.file(str(without))
    assert found is not None
    with pytest.raises(AnotherDigest):
        beside_digest(found.text, str(found.peers_digest), {})


def test_a_reading_that_is_cut_anywhere_is_none(node: Node) -> None:
    node.file("wg1.conf", render(CONFIG))
    printed = node.print("wg1")
    probe.parse(printed, MARK)
    for length in range(len(printed)):
        with pytest.raises(probe.CutShort):
            probe.parse(printed[:length], MARK)


def test_an_answer_that_is_too_long_is_an_error_and_no_part_of_it_counts(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut on the node."""
    node.file("wg1.conf", render(CONFIG))
    length = len(node.print("wg1"))
    monkeypatch.setattr(probe, "_TEXT", probe._TEXT.replace(f"head -c {probe.MOST}", f"head -c {length}"))
    monkeypatch.setattr(probe, "MOST", length)
    assert node.reading("wg1").dump("all").stdout == dump()
    node.program("ip", f"{(node.root / 'bin/ip').read_text()}\necho; echo '{{}}'")
    printed = node.print("wg1")
    assert len(printed) == length
    with pytest.raises(probe.CutShort, match=f"longer than {length} bytes"):
        probe.parse(printed, MARK)
    node.program("wg", "if [ $2 = interfaces ]; then echo wg1; else yes; fi")
    with pytest.raises(probe.CutShort, match="longer than"):
        node.reading("wg1")


def test_the_keys_of_other_interfaces_stay_where_they_are(node: Node) -> None:
    """Whatever their names; and how wg ended is told as ever."""
    theirs = [dump().replace("wg1\t", f"{name}\t") for name in ("wg0", "wg11", "corp.v1", "wg1")]
    for text, key in zip(theirs[:3], (4, 5, 6), strict=True):
        theirs.append(
            text.replace(private_key(1), private_key(key)).replace(preshared_key(2), preshared_key(key))
        )
    (node.root / "dump").write_text("".join(theirs[3:]), encoding="ascii")
    assert node.reading("wg1", "wg7").dump("all") == source.Printed(0, dump(), "")
    printed = node.print("wg1", "wg7")
    for key in (4, 5, 6):
        assert private_key(key) not in printed
        assert preshared_key(key) not in printed
    assert node.reading().dump("all") == source.Printed(0, "", "")
    assert set(read_node(None, node.reading("wg1")).devices) == {"wg1"}
    program = (node.root / "bin/wg").read_text(encoding="utf-8")
    for length in (1, 3, 100, dump().index("\n"), dump().index("\n") + 1, len(dump()) - 1):
        # What is cut looks as it does where nobody else has an interface.
        node.program(
            "wg", f"if [ $2 = interfaces ]; then echo wg0 wg1; else head -c {length} {node.root}/cut; fi"
        )
        (node.root / "cut").write_text(dump(), encoding="ascii")
        assert node.reading("wg1").dump("all").stdout == dump()[:length]
    node.program("wg", f"{program}\n[ $2 = interfaces ] || {{ echo wg5 is broken >&2; exit 3; }}")
    assert node.reading("wg1").dump("all") == source.Printed(3, dump(), "wg5 is broken")
    node.program("wg", f"if [ $2 = interfaces ]; then exit 1; fi; {program}")
    assert node.reading("wg1").dump("all") == source.Printed(0, dump(), "")


@pytest.mark.parametrize("whole", [True, False])
def test_a_shell_that_gets_a_part_of_the_text_says_nothing_that_counts(node: Node, whole: bool) -> None:
    text = node.script("wg1", whole=whole)
    lines = text.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        done = subprocess.run(
            ["sh"], input="".join(lines[:number]), capture_output=True, text=True, check=False
        )
        with pytest.raises(probe.CutShort):
            probe.parse(done.stdout, MARK)


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "\x00\xff",
        "Last login: today\n",
        f"\n{MARK} end\nmore",
        f"\n{MARK} = 0\n\n{MARK} end\n",
        f"\n{MARK} dump\n\n{MARK} = x\n\n{MARK} end\n",
        f"\n{MARK} dump\n\n{MARK} = 0\n\n{MARK} dump\n\n{MARK} = 0\n\n{MARK} end\n",
        f"\n{MARK} dump\n" * 100_000,
        "x" * 10_000_000,
    ],
    ids=lambda text: text[:20].strip(),
)
def test_what_is_no_reading_is_refused(printed: str) -> None:
    with pytest.raises(probe.CutShort):
        probe.parse(printed, MARK)


def test_a_reading_without_a_section_is_refused_where_it_is_needed() -> None:
    reading = probe.parse(f"\n{MARK} x\n\n{MARK} = 0\n\n{MARK} end\n", MARK)
    for ask in (
        reading.addresses,
        lambda: reading.routes("-4"),
        lambda: reading.dump("all"),
        lambda: reading.has_socket("wg1"),
        lambda: reading.file("/etc/wireguard/wg1.conf"),
    ):
        with pytest.raises(probe.CutShort):
            ask()


@pytest.mark.parametrize(
    "name", ["wg1;id", "$(id)", "`id`", "a b", "-x", ".x", "wg1\nid", "a" * 16, "*", "", "all"]
)
def test_what_is_no_name_of_an_interface_never_gets_into_the_text(name: str) -> None:
    with pytest.raises(InvalidInput):
        probe.text(["wg1", name], MARK)


@pytest.mark.parametrize("mark", ["", "x" * 32, MARK[1:], f"{MARK}\n"])
def test_a_mark_is_nothing_but_digits(mark: str) -> None:
    with pytest.raises(ValueError, match="mark"):
        probe.text(["wg1"], mark)


def test_every_reading_has_a_mark_of_its_own() -> None:
    assert probe.new_mark() != probe.new_mark()


def test_odd_names_of_interfaces_are_words(node: Node) -> None:
    node.file("a=b+c.d-e_.conf", render(CONFIG))
    reading = node.reading("a=b+c.d-e_").reading
    assert reading.file(f"{node.root}/etc/a=b+c.d-e_.conf") == source.File(render(CONFIG), True)


def test_what_wg_and_ip_say_when_they_fail(node: Node) -> None:
    node.program("wg", "printf half; echo 'Unable to access interface wg1: Broken' >&2; exit 1")
    node.program("ip", "echo '[]'; echo 'no netlink' >&2; exit 3")
    reading = node.reading().reading
    assert reading.dump("all") == source.Printed(1, "half", "Unable to access interface wg1: Broken")
    with pytest.raises(CommandFailed, match="ip -json -details failed with exit code 3: no netlink"):
        reading.addresses()


def test_a_node_without_tools(node: Node) -> None:
    for name in ("wg", "ip"):
        (node.root / "bin" / name).unlink()
    text = node.script("wg1").replace("PATH=" + f"{node.root}/bin:", f"PATH={node.root}/bin #", 1)
    for tool in ("stat", "cat", "sed", "wc", "tail", "sha256sum"):
        (node.root / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(["/bin/sh"], input=text, capture_output=True, text=True, check=True)
    reading = probe.parse(done.stdout, MARK)
    with pytest.raises(WireGuardError, match=r"^wg is not on this node: install wireguard-tools"):
        reading.dump("all")
    with pytest.raises(WireGuardError, match=r"^ip is not on this node: install iproute2"):
        reading.addresses()


def test_a_file_that_cannot_be_read(node: Node) -> None:
    (node.root / "etc/wg1.conf").mkdir()
    os.mkfifo(node.root / "etc/wg2.conf")
    (node.root / "etc/wg3.conf").symlink_to("nowhere")
    reading = node.reading("wg1", "wg2", "wg3").reading
    for name in ("wg1", "wg2"):
        with pytest.raises(WireGuardError, match="cannot be read: it is no regular file"):
            reading.file(f"{node.root}/etc/{name}.conf")
    assert reading.file(f"{node.root}/etc/wg3.conf") is None
    node.program("cat", "exit 1")
    node.file("wg4.conf", "x")
    with pytest.raises(WireGuardError, match="cannot be read"):
        node.reading("wg4").reading.file(f"{node.root}/etc/wg4.conf")


def test_units_where_systemd_runs(node: Node) -> None:
    (node.root / "run/systemd/system").mkdir(parents=True)
    node.program(
        "systemctl",
        'test "$1 $3" = "show --" || exit 1\n'
        "for unit in $4 $5; do case $unit in\n"
        "*wg1*) printf 'Id=%s\\nActiveState=active\\nUnitFileState=enabled\\n\\n' $unit ;;\n"
        "*) printf 'Id=%s\\nActiveState=inactive\\nUnitFileState=disabled\\n\\n' $unit ;; esac; done",
    )
    reading = node.reading("wg1", "wg7").reading
    assert reading.units(["wg1", "wg7"], "/etc/wireguard") == {
        "wg1": Unit(True, True),
        "wg7": Unit(False, False),
    }
    assert reading.units(["wg1"], "/elsewhere") == {"wg1": None}
    node.program("systemctl", "exit 4")
    with pytest.raises(CommandFailed):
        node.reading("wg1").reading.units(["wg1"], "/etc/wireguard")


def test_what_interfaces_leave_behind(node: Node) -> None:
    node.file("wg1.conf", render(CONFIG))
    node.file("wg5.conf", "")
    node.file("two\nlines.conf", "")
    node.file(".wg6.conf.vpnfleet-new", "")
    wants = node.root / "systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("wg-quick@wg5.service", "wg-quick@wg9.service", "wg-quick@a b.service", "ssh.service"):
        (wants / name).symlink_to("/nowhere")
    runtime = node.root / "run/systemd/system/any.wants"
    runtime.mkdir(parents=True)
    (runtime / "wg-quick@wg10.service").symlink_to("/nowhere")
    node.program("systemctl", "exit 0")
    reading = node.reading("wg1").reading
    assert reading.traces("/etc/wireguard") == {
        "wg1": "file",
        "wg5": "enabled at boot",
        "wg9": "enabled at boot",
        "wg10": "enabled at boot",
    }
    with pytest.raises(WireGuardError):
        reading.traces("/elsewhere")
    (node.root / "etc").rename(node.root / "gone")
    assert "wg1" not in node.reading("wg1").reading.traces("/etc/wireguard")


def test_a_second_reading_of_the_peers_where_it_is_asked_for(node: Node) -> None:
    node.program(
        "wg",
        f"case $3 in peers) printf 'wg1\tone\nwg2\ttwo\n'; echo broken >&2; exit 1 ;; *) cat {node.root}/dump ;; esac",
    )
    with pytest.raises(probe.NotAsked):
        node.reading("wg1").peers("all")
    reading = node.reading("wg1", again=True)
    assert reading.peers("all") == (1, "wg1\tone\nwg2\ttwo\n", "broken")
    assert reading.peers("wg2") == (1, "two\n", "broken")
    assert reading.dump("all").stdout == dump()


def test_a_second_reading_without_wg_is_none(node: Node) -> None:
    node.program("wg", f"case $3 in peers) exit 127 ;; *) cat {node.root}/dump ;; esac")
    with pytest.raises(WireGuardError, match=r"^wg is not on this node"):
        node.reading("wg1", again=True).peers("all")


def test_a_look_answers_as_the_module_does(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.file("wg1.conf", render(CONFIG))
    stranger, changed = PEERS[0], PEERS[1]._replace(persistent_keepalive=5)
    wanted = {
        "interface": "wg1",
        "listen_port": 51820,
        "peers": [
            {
                "public_key": changed.public_key,
                "allowed_ips": list(changed.allowed_ips),
                "preshared_key": changed.preshared_key,
                "persistent_keepalive": 5,
                "name": "phone",
                "peer_id": "7",
            }
        ],
    }
    params = {"interfaces": [wanted, {"interface": "wg7", "state": "absent"}], "complete": True}
    monkeypatch.setattr(drift_repair, "read_node", lambda _names: read_node(None, Commands(node)))
    by_module = drift_repair.run(params, check_mode=False, with_diff=False)
    monkeypatch.undo()
    by_probe = drift.look(drift.check_expected(params), node.reading("wg1", "wg7"))
    assert by_probe == by_module
    assert [one["public_key"] for one in by_probe["unknown_peers"]] == [stranger.public_key]
    assert by_probe["summary"]["total_issues"] == 2
