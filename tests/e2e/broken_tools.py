"""Stand-ins for wg, ip and wireguard-go on a node that fail, kill their caller, wait or lie at a call of choice.

They stand in /usr/local/sbin, before the real ones, and pass every other call on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.node import Node

TOOLS = ("wg", "ip", "wireguard-go")
FOLDER = "/run/broken"

# In `orders` stands the number of the call (0: none) and what to do there. `calls` keeps the calls since then, and
# `seen` all calls with their environment.
_STAND_IN = r"""#!/bin/sh
name=${0##*/}
for real in /usr/bin/$name /usr/sbin/$name; do [ -x "$real" ] && break; done
read -r at what </run/broken/orders
count=$(($(cat /run/broken/count) + 1))
echo $count >/run/broken/count
echo "$count $name $*" >>/run/broken/calls
{ echo "$name $*"; env; } >>/run/broken/seen
if [ $count -eq "$at" ]; then
    case $what in
    fail) echo "out of luck" >&2; exit 7 ;;
    kill-before) kill -KILL $PPID; exit 7 ;;
    kill-after) "$real" "$@"; kill -KILL $PPID; exit 7 ;;
    esac
fi
case "$what $name $*" in
"slow wg set "*) sleep 1 ;;
"wait "*) until [ -e /run/broken/go ]; do sleep 0.05; done ;;
"half wg show "*" dump") "$real" "$@" | head -c 150; exit 0 ;;
"lines-"*" wg show "*" dump") "$real" "$@" | head -n "${what#lines-}"; exit 0 ;;
"bytes-"*" wg show "*" dump") "$real" "$@" | head -c "${what#bytes-}"; exit 0 ;;
"ended-"*" wg show "*" dump") "$real" "$@" | head -c "${what#ended-}"; echo; exit 0 ;;
"refuse wg set "*" peer $(cat /run/broken/refused 2>/dev/null || echo nobody) "*)
    echo "Unable to modify interface: No buffer space available" >&2; exit 1 ;;
"died wg show "*" dump") "$real" "$@" | head -n 1; kill -KILL $$ ;;
"deny wg show wg7 dump") echo "Unable to access interface wg7: Permission denied" >&2; exit 1 ;;
"deny wg show all dump") "$real" "$@" | grep -v '^wg7	'; echo "Unable to access interface wg7: Permission denied" >&2
    exit 1 ;;
"lose ip -batch -" | "lose wg set "*) cat >/dev/null; exit 0 ;;
esac
exec "$real" "$@"
"""


def order(at: int, what: str) -> str:
    """The shell line that makes call number `at` (counted from now) go wrong; 0 with `what` concerns all calls."""
    return f"echo {at} {what} >{FOLDER}/orders; echo 0 >{FOLDER}/count; : >{FOLDER}/calls"


WORK_AS_EVER = order(0, "never")
#: From now on all calls wait, until they are let go.
WAIT = f"rm -f {FOLDER}/go; {order(0, 'wait')}"
GO = f"touch {FOLDER}/go; {WORK_AS_EVER}"


def waiting(number: int) -> str:
    """The shell line that says whether so many calls wait."""
    return f"test $(wc -l <{FOLDER}/calls) -ge {number}"


@contextmanager
def stand_ins(node: Node) -> Iterator[None]:
    """Put the stand-ins in place; until an order is given they only count."""
    node.run(["sh", "-euc", f"mkdir -p {FOLDER}; {WORK_AS_EVER}"])
    for tool in TOOLS:
        node.write(f"/usr/local/sbin/{tool}", _STAND_IN, 0o755)
    try:
        yield
    finally:
        node.run(["rm", "-rf", FOLDER, *(f"/usr/local/sbin/{tool}" for tool in TOOLS)])


def calls(node: Node) -> list[str]:
    """The calls made since the last order, as ``wg set wg7 …``."""
    return [line.split(" ", 1)[1] for line in node.read(f"{FOLDER}/calls").splitlines()]


@contextmanager
def hidden(node: Node, program: str) -> Iterator[None]:
    """A program that is not installed, for a while."""
    places = [f"{folder}/{program}" for folder in ("/usr/bin", "/usr/sbin")]
    found = [path for path in places if node.run(["test", "-e", path], check=False).returncode == 0]
    for path in found:
        node.run(["mv", path, f"{path}.hidden"])
    try:
        yield
    finally:
        for path in found:
            node.run(["mv", f"{path}.hidden", path])
