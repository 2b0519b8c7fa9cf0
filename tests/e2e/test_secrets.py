"""No private or preshared key in anything that a run prints, shows in ps, logs or leaves behind."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wg_node
from tests.e2e.ansible_run import Run, Task, play, script, task
from tests.e2e.broken_tools import FOLDER, WORK_AS_EVER, order, stand_ins
from tests.e2e.process_watch import Watch, watch_processes
from tests.e2e.wg_node import empty
from tests.e2e.wireguard_keys import peer, peer_key, preshared_key, private_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node

# By the names under which the tasks find them: their text must not stand near a task, whose lines Ansible shows.
SECRETS = {
    "key": private_key("secret interface"),
    "new_key": private_key("secret new interface"),
    "psk": preshared_key("secret one"),
    "new_psk": preshared_key("secret two"),
    "file_key": private_key("secret in a file"),
    "file_psk": preshared_key("secret in a file"),
}
# Nearly keys: what someone has cut off or mistyped is a secret too.
BROKEN = {"broken_key": SECRETS["new_key"][:-2], "broken_psk": SECRETS["new_psk"][:-1]}
CONFIG = "/etc/wireguard/wg7.conf"


INSTANCE: dict[str, Any] = {
    "name": "wg7",
    "private_key": "{{ key }}",
    "listen_port": 20007,
    "addresses": ["10.7.0.1/24"],
    "peers": [peer("a", "10.7.0.2/32", preshared_key="{{ psk }}"), peer("b", "10.7.0.3/32")],
}
CHANGED = {
    **INSTANCE,
    "private_key": "{{ new_key }}",
    "peers": [peer("a", "10.7.0.2/32", preshared_key="{{ new_psk }}"), peer("c", "10.7.0.4/32")],
}
OTHER: dict[str, Any] = {
    "name": "wg8",
    "private_key": "{{ key }}",
    "listen_port": 20008,
    "addresses": ["10.8.0.1/24"],
    "peers": [peer("a", "10.8.0.2/32", preshared_key="{{ psk }}")],
}
# Config files as people leave them; they are put in place by hand, from where the search for leftovers does not look.
ROTTEN, STRANGE = "/etc/wireguard/by-hand/wg1.conf", "/etc/wireguard/by-hand/wg2.conf"
FILES = {
    ROTTEN: f"""# PrivateKey = {SECRETS["file_key"]}
#{SECRETS["file_psk"]}
[Interface]
PrivateKey {SECRETS["file_key"]}
PrivatKey = {SECRETS["file_key"]}
PrivateKey = {SECRETS["file_key"][:-3]}
{SECRETS["file_psk"]}
PostUp = echo {SECRETS["file_psk"]} | wg set %i peer x preshared-key /dev/stdin
[Peer]PresharedKey={SECRETS["file_psk"]}
""",
    STRANGE: f"""[Interface]
PrivateKey = {SECRETS["file_key"]}
[Peer]
PublicKey = {peer_key("z")}
PresharedKey = {SECRETS["file_psk"]}
""",
}


def both(name: str, module: str, asked: dict[str, Any]) -> list[Task]:
    """In check mode and for real."""
    return [task(f"{name}, check", module, asked, check=True), task(name, module, asked)]


def for_real(tasks: list[Task]) -> list[Task]:
    """The same without check mode, where what it prints has been looked at already."""
    return [task for task in tasks if not task.get("check_mode")]


def good_tasks(src: Path) -> list[Task]:
    secret_b = peer("b", "10.7.0.3/32", preshared_key="{{ new_psk }}")
    drifted = [
        peer("a", "10.7.0.2/32", preshared_key="{{ psk }}"),
        peer("d", "10.7.0.5/32", preshared_key="{{ new_psk }}"),
    ]
    return [
        *both("single", "wg_instance", INSTANCE),
        *both("single again", "wg_instance", INSTANCE),
        *both("changed", "wg_instance", CHANGED),
        *both("batch", "wg_instance", {"instances": [INSTANCE, OTHER]}),
        *both("file", "wg_instance", {"src": str(src)}),
        *both("peer", "wg_peer", {"interface": "wg7", **peer("b", "10.7.0.3/32", preshared_key="{{ psk }}")}),
        *both("peers", "wg_peer", {"interface": "wg7", "peers": [secret_b]}),
        *both("peer bare", "wg_peer", {"interface": "wg7", "public_key": peer_key("b"), "preshared_key": ""}),
        *both("drift", "wg_drift", {"interface": "wg7", "peers": drifted}),
        *both("reconcile", "wg_drift", {"interface": "wg7", "peers": drifted, "reconcile_missing": True,
                                        "reconcile_mismatched": True, "remove_unknown": True}),
        *both("info", "wg_info", {}),
        {**task("background", "wg_instance", INSTANCE), "async": 60, "poll": 1},
        script("rot", f"cp {ROTTEN} {CONFIG}"),
        *both("file mended", "wg_instance", CHANGED),
        script("rot again", f"cp {ROTTEN} {CONFIG}"),
        *both("file thrown away", "wg_instance", {"name": "wg7", "state": "absent"}),
        script("strange", f"cp {STRANGE} {CONFIG}"),
        *both("from a file of others", "wg_instance", {"name": "wg7", "listen_port": 20007}),
        *both("over a file of others", "wg_instance", INSTANCE),
    ]  # fmt: skip


def bad_tasks() -> list[Task]:
    near = peer("c", "10.7.0.4/24", preshared_key="{{ new_psk }}")
    overlap = peer("c", "10.7.0.2/32", preshared_key="{{ new_psk }}")
    keys = {"private_key": "{{ new_key }}"}
    listed = {**INSTANCE, "private_key": ["{{ new_key }}"]}
    return [
        task("start", "wg_instance", INSTANCE),
        *both("bad network", "wg_instance", {**INSTANCE, **keys, "peers": [near]}),
        *both("bad network in a batch", "wg_instance", {"instances": [{**INSTANCE, **keys, "peers": [near]}, OTHER]}),
        *both("bad network by wg_peer", "wg_peer", {"interface": "wg7", **near}),
        *both("bad network in wg_peer's list", "wg_peer", {"interface": "wg7", "peers": [near]}),
        *both("bad network in wg_drift", "wg_drift", {"interface": "wg7", "peers": [near]}),
        *both("bad port", "wg_instance", {**INSTANCE, **keys, "listen_port": 70000}),
        *both("no number", "wg_instance", {**INSTANCE, **keys, "listen_port": "x"}),
        *both("bad name", "wg_instance", {**INSTANCE, **keys, "name": "../../x"}),
        *both("broken key", "wg_instance", {**INSTANCE, "private_key": "{{ broken_key }}"}),
        *both("broken key in a batch", "wg_instance", {"instances": [{**INSTANCE, "private_key": "{{ broken_key }}"}]}),
        *both("broken preshared key", "wg_instance",
              {**INSTANCE, "peers": [peer("a", "10.7.0.2/32", preshared_key="{{ broken_psk }}")]}),
        *both("broken preshared key by wg_peer", "wg_peer",
              {"interface": "wg7", **peer("a", "10.7.0.2/32", preshared_key="{{ broken_psk }}")}),
        *both("a list for a key", "wg_instance", listed),
        *both("a list for a key in a batch", "wg_instance", {"instances": [listed]}),
        *both("a mapping for a preshared key", "wg_instance",
              {**INSTANCE, "peers": [peer("a", "10.7.0.2/32", preshared_key={"key": "{{ new_psk }}"})]}),
        *both("peers as a text", "wg_instance", {**INSTANCE, "peers": "preshared_key={{ new_psk }}"}),
        *both("a peer as a text", "wg_instance", {**INSTANCE, "peers": ["{{ new_psk }}"]}),
        *both("an instance as a text", "wg_instance", {"instances": ["{{ new_key }}"]}),
        *both("unknown field", "wg_instance",
              {**INSTANCE, "peers": [peer("a", "10.7.0.2/32", presharedkey="{{ new_psk }}")]}),
        *both("unknown parameter", "wg_instance", {**INSTANCE, **keys, "listenport": 1}),
        *both("overlap", "wg_instance", {**INSTANCE, **keys, "peers": [INSTANCE["peers"][0], overlap]}),
        *both("overlap by wg_peer", "wg_peer", {"interface": "wg7", **overlap}),
        *both("too many gone", "wg_instance", {**INSTANCE, **keys, "peers": []}),
        *both("port in use", "wg_instance", {**OTHER, "private_key": "{{ new_key }}", "listen_port": 20007}),
        *both("the name of a card", "wg_instance", {**CHANGED, "name": "eth0"}),
        script("rot", f"cp {ROTTEN} /etc/wireguard/wg9.conf"),
        *both("a broken file", "wg_instance", {"name": "wg9", "peers": [near | {"allowed_ips": []}]}),
        script("order 1", order(7, "fail")),
        task("a command fails", "wg_instance", CHANGED),
        script("order 2", order(6, "kill-after")),
        task("a command is killed", "wg_instance", CHANGED),
        script("order 3", WORK_AS_EVER),
    ]  # fmt: skip


# A /dev of the node's own, so that the log that programs write to is not this machine's.
_LOG = """
mkdir -p /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
for device in null zero full random urandom tty; do cp -a /dev/$device /run/dev/; done
mkdir /run/dev/pts /run/dev/shm /run/dev/net
cp -a /dev/net/tun /run/dev/net/
ln -s pts/ptmx /run/dev/ptmx
ln -s /proc/self/fd /run/dev/fd
mount --bind /dev/pts /run/dev/pts
mount --rbind /run/dev /dev
"""
_LOGGER = """
import os, socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
with open("/run/syslog.pid", "w") as file: file.write(str(os.getpid()))
with open("/run/syslog", "ab", buffering=0) as file:
    while True: file.write(log.recv(1 << 20) + bytes([10]))
"""

_START_LOGGER = """
python3 /run/logger.py >/dev/null 2>&1 </dev/null &
while [ ! -s /run/syslog.pid ]; do sleep 0.1; done
"""
# The config files are where secrets belong; what is in the log is looked at apart.
_LOOK_FOR_LEFTOVERS = """
grep -rlF --exclude=syslog --exclude='wg[0-9].conf' -f - /tmp /var/tmp /root /run /var/log /var/lib /etc 2>/dev/null
"""


@pytest.fixture
def syslog(node: Node) -> Iterator[None]:
    """A log daemon on the node, which writes /run/syslog."""
    node.run(["sh", "-euc", _LOG])
    node.write("/run/logger.py", _LOGGER)
    node.run(["sh", "-c", _START_LOGGER])
    yield
    node.run(
        [
            "sh",
            "-c",
            "kill $(cat /run/syslog.pid); umount -R /dev; umount -R /run/dev; rm -rf /run/syslog* /run/dev",
        ]
    )


@dataclass(frozen=True)
class Traces:
    """All that a run has left: what it printed, what the node logged, what tools were called with, and files."""

    run: Run
    watch: Watch
    log: str
    commands: str
    files_on_node: str
    files_on_controller: str


def run_and_gather(
    lab: Lab, node: Node, tasks: list[Task], tmp_path: Path, options: list[str], pipelining: bool
) -> Traces:
    home = tmp_path / "controller"
    home.mkdir()
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({**SECRETS, **BROKEN}))
    looked_for = [*SECRETS.values(), *BROKEN.values()]
    for path, text in FILES.items():
        node.write(path, text, 0o600)
    with stand_ins(node):
        with watch_processes(looked_for) as watch:
            run = play(
                lab,
                node,
                tasks,
                [*options, "--diff", "-e", f"@{secrets}"],
                {
                    "ANSIBLE_HOME": str(home),
                    "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
                    "ANSIBLE_NO_TARGET_SYSLOG": "False",
                    "ANSIBLE_PIPELINING": str(pipelining),
                    "TMPDIR": str(home),
                },
            )
        commands = node.read(f"{FOLDER}/seen")
    patterns = "\n".join(looked_for)
    on_node = node.run(["sh", "-c", _LOOK_FOR_LEFTOVERS], input=patterns, check=False).stdout
    on_controller = subprocess.run(
        ["grep", "-rlF", "-f", "-", str(home), os.path.expanduser("~/.ansible")],  # noqa: PTH111
        input=patterns, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return Traces(run, watch, node.read("/run/syslog"), commands, on_node, on_controller)


def leaks(text: str) -> list[str]:
    """The names of the secrets that stand in `text`: plain, in part, as bytes in base64 or hex, or packed."""
    texts = [text]
    for run in set(re.findall(r"[A-Za-z0-9+/]{60,}={0,2}", text)):
        for form in (zlib.decompress, bytes):
            try:
                texts.append(form(base64.b64decode(run)).decode("utf-8", "replace"))
            except (ValueError, zlib.error):
                continue
    found = []
    for name, secret in {**SECRETS, **BROKEN}.items():
        raw = base64.b64decode(SECRETS[name.replace("broken", "new")])
        forms = [secret[:30], raw.hex(), base64.b64encode(secret.encode()).decode()[:40]]
        if any(form in text for text in texts for form in forms):
            found.append(name)
    return found


def check(traces: Traces) -> None:
    for name, result in traces.run.results.items():
        assert leaks(json.dumps(result.answer)) == [], name
    # Where it stands, without saying what stands there.
    for line in traces.run.output.splitlines():
        assert leaks(line) == [], line[:100]
    assert leaks(traces.run.output) == []
    assert traces.watch.looks > 10
    assert traces.watch.found == ()
    assert leaks(traces.commands) == []
    assert "wg set wg7" in traces.commands
    assert leaks(traces.log) == []
    assert "Invoked with" in traces.log
    assert traces.files_on_node == ""
    assert traces.files_on_controller == ""


@pytest.mark.usefixtures("syslog")
@pytest.mark.parametrize(
    ("verbosity", "pipelining"), [("-vvv", True), ("-vvvv", False)], ids=["pipelined", "not pipelined"]
)
def test_runs_that_succeed_tell_no_secret(
    lab: Lab, node: Node, tmp_path: Path, verbosity: str, pipelining: bool
) -> None:
    empty(node)
    src = tmp_path / "instances.json"
    keys = (
        json.dumps([{**OTHER, "mtu": 1300}])
        .replace("{{ key }}", SECRETS["key"])
        .replace("{{ psk }}", SECRETS["psk"])
    )
    src.write_text(keys)
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    with_password = ["--vault-password-file", str(password)]
    encrypt = [sys.executable, "-m", "ansible", "vault", "encrypt", *with_password, str(src)]
    subprocess.run(encrypt, check=True, capture_output=True)
    tasks = for_real(good_tasks(src)) if not pipelining else good_tasks(src)
    traces = run_and_gather(lab, node, tasks, tmp_path, [verbosity, *with_password], pipelining)
    failed = {name: result.message for name, result in traces.run.results.items() if result.failed}
    assert failed == {}
    for name in ("single", "changed", "batch", "file", "peer", "peers", "reconcile", "file mended"):
        assert traces.run[name].changed, name
        if pipelining:
            assert traces.run[name].diff == traces.run[f"{name}, check"].diff
    shown = json.dumps([traces.run[name].diff for name in ("changed", "peer", "file mended")])
    assert "sha256:" in shown
    check(traces)
    empty(node)


@pytest.mark.usefixtures("syslog")
@pytest.mark.parametrize(
    ("verbosity", "pipelining"), [("-vvvv", True), ("-vvv", False)], ids=["pipelined", "not pipelined"]
)
def test_runs_that_fail_tell_no_secret(
    lab: Lab, node: Node, tmp_path: Path, verbosity: str, pipelining: bool
) -> None:
    empty(node)
    tasks = for_real(bad_tasks()) if not pipelining else bad_tasks()
    traces = run_and_gather(lab, node, tasks, tmp_path, [verbosity], pipelining)
    scripts = {"start", "rot", "order 1", "order 2", "order 3"}
    served = [
        name for name, result in traces.run.results.items() if not result.failed and name not in scripts
    ]
    assert served == []
    assert not traces.run["start"].failed
    check(traces)
    empty(node)


# -- that the looks above would find something


def test_the_watch_sees_a_secret_in_a_command_line_and_in_an_environment(node: Node) -> None:
    with watch_processes([SECRETS["key"]]) as watch:
        node.run(["sh", "-c", "sleep 0.5; true", SECRETS["key"]])
        node.run(["env", f"KEY={SECRETS['key']}", "sleep", "0.5"])
        time.sleep(0.1)
    assert [entry for entry in watch.found if entry.startswith("cmdline: sh")]
    assert [entry for entry in watch.found if entry.startswith("environ: ")]


@pytest.mark.parametrize("form", ["plain", "cut off", "hex", "twice in base64", "packed"])
def test_leaks_are_found_in_whatever_form(form: str) -> None:
    key = SECRETS["key"]
    packed = base64.b64encode(
        zlib.compress(json.dumps({"peers": [{"private_key": key}] * 2}).encode(), 1)
    ).decode()
    text = {
        "plain": key,
        "cut off": key[:32],
        "hex": base64.b64decode(key).hex(),
        "twice in base64": base64.b64encode(key.encode()).decode(),
        "packed": packed,
    }[form]
    assert leaks(f"so it says '{text}'!") == ["key"]
    assert leaks("nothing " + "x" * 100) == []
