# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reading of a node by one shell, which prints what the controller then understands: nothing is started there that
takes longer to load than to run.

Private keys of the interfaces that are asked for are among what it prints: that the file says the same as what runs is
seen by them. They cross the network within the connection, are kept by nobody, and those of other interfaces do not
leave the node.

What it prints comes in sections. Each begins and ends with a line that bears a mark made for this one reading, which
nothing on the node can hold, and the last line says that this is the end. What was cut anywhere is no reading.
"""

from __future__ import annotations

import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import systemd, traces
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.atomic_file import MODE
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.commands import (
    SEARCH_PATH,
    missing,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import (
    DEFAULT_CONFIG_DIR,
    check_name,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    CommandFailed,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.source import (
    ADDRESSES,
    File,
    Printed,
    routes_command,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Unit

#: Of config files of more bytes than this, the beginning and a digest of the peers are read.
LONG = 65536
#: So many bytes are an answer at the most; a dump of 100,000 peers has 20 million. What is longer is cut there, and so
#: lacks its end.
MOST = 64 * 1024 * 1024

# The positional parameters are the interfaces. All of it is one compound command: a shell that gets a part of the text
# does nothing. `run` lets a program's output pass, and keeps what it writes to stderr and its exit code for the end of
# the section.
_TEXT = rf"""{{
{{
PATH={SEARCH_PATH}
LC_ALL=C
export PATH LC_ALL
exec 3>&1
run() {{
    printf '\n%s %s\n' "$mark" "$1"
    shift
    stderr=$("$@" 2>&1 >&3 </dev/null)
    printf '\n%s = %s\n%s' "$mark" "$?" "$stderr"
}}
names() {{
    if [ -d {DEFAULT_CONFIG_DIR} ] && [ ! -r {DEFAULT_CONFIG_DIR} ]; then
        echo "{DEFAULT_CONFIG_DIR} cannot be read" >&2
        return 1
    fi
    # What has other characters in its name is no instance's.
    for file in {DEFAULT_CONFIG_DIR}/*.conf {DEFAULT_CONFIG_DIR}/.*.conf; do
        file=${{file##*/}}
        case $file in *[!A-Za-z0-9_=+.-]*) continue ;; esac
        printf '%s\n' "$file"
    done
}}
links() {{
    for link in {" ".join(f"{folder}/{traces.UNIT_LINKS}" for folder in traces.UNIT_FOLDERS)}; do
        if [ -L "$link" ] || [ -e "$link" ]; then printf '%s\n' "$link"; fi
    done
}}
dump() {{
    # Others' keys are none of our business. Where nobody else has an interface, nothing is in the way of the answer.
    others=
    interfaces=$(wg show interfaces 2>/dev/null) || others=yes
    for found in $interfaces; do
        case " $ours " in *" $found "*) ;; *) others=yes ;; esac
    done
    if [ -z "$others" ]; then
        wg show all dump
        return
    fi
    # What was cut stays so: behind the last newline, the mark stands in a line of its own.
    code=$({{
        {{ wg show all dump; echo "$?" >&4; echo "$mark"; }} | awk -F '\t' -v "mark=$mark" '
            BEGIN {{ for (i = 1; i < ARGC; i++) {{ ours[ARGV[i]]; delete ARGV[i] }} }}
            $0 == mark {{ exit }}
            index($0, mark) {{ printf "%s", substr($0, 1, index($0, mark) - 1); exit }}
            $1 in ours' $ours >&3
    }} 4>&1)
    return "$code"
}}
digest() {{
    start=$(sed '/^\[Peer\]$/q' "$1" | wc -c) && tail -c "+$((start - 6))" "$1" | sha256sum
}}
run addresses {" ".join(ADDRESSES)}
ours=$*
run dump dump
if [ "$again" = yes ]; then run peers wg show all peers; fi
run routes-4 {" ".join(routes_command("-4"))}
run routes-6 {" ".join(routes_command("-6"))}
files=
units=
for name; do
    units="$units wg-quick@$name.service"
    file={DEFAULT_CONFIG_DIR}/$name.conf
    if [ -e "$file" ]; then files="$files $file"; fi
done
# The first tells who this is.
found=$(stat -c '%f %u %s %n' -- /proc/self/. $files)
printf '\n%s files\n%s\n%s = %s\n' "$mark" "$found" "$mark" "$?"
while read -r mode owner size file; do
    case $file in /proc/*) continue ;; esac
    if [ ! -f "$file" ]; then
        run "not-a-file $file" :
    elif [ "$whole" = no ] && [ "$size" -gt {LONG} ]; then
        run "head $file" sed '/^\[Peer\]$/q' "$file"
        run "digest $file" digest "$file"
    else
        run "file $file" cat -- "$file"
    fi
done <<END
$found
END
sockets=
for socket in /run/wireguard/*.sock; do
    if [ -e "$socket" ]; then sockets="$sockets $socket"; fi
done
printf '\n%s sockets\n%s\n%s = 0\n' "$mark" "$sockets" "$mark"
run names names
run links links
if [ "$#" -gt 0 ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
    run units {" ".join(systemd.SHOW)} $units
fi
printf '\n%s end\n' "$mark"
}} | head -c {MOST}
exit
}}
"""
_MARK = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"([0-9a-f]{64})  -")
#: What no program of the node's says, and its shell does of one that is not there.
_NOT_FOUND = 127


class CutShort(WireGuardError):
    """What was printed is not a whole reading, or none at all: nothing may be concluded from it."""


def new_mark() -> str:
    """What sections are told apart by, in one reading."""
    return secrets.token_hex(16)


class NotAsked(WireGuardError):
    """A second reading of the peers is needed, and the probe was not asked for one."""


def text(interfaces: Sequence[str], mark: str, whole: bool = False, again: bool = False) -> str:
    """What the node's sh is to do, on its stdin. `whole`: read long config files in full, too; `again`: read a second
    time who runs.

    Raises InvalidInput for what is no name of an interface: none of those allowed means anything to a shell.
    """
    if _MARK.fullmatch(mark) is None:
        raise ValueError("a mark is 32 hexadecimal digits")
    names = [check_name(name, "interface") for name in interfaces]
    return (
        "\n".join(
            (
                f"mark={mark}",
                f"whole={_word(whole)}",
                f"again={_word(again)}",
                f"set -- {' '.join(names)}".rstrip(),
                _TEXT,
            )
        )
        + "\n"
    )


@dataclass(frozen=True)
class Reading:
    """What a probe has printed: a Source, as module_utils' source has it."""

    sections: dict[str, Printed] = field(repr=False)

    def addresses(self) -> str:
        """As Source says."""
        return self._output("addresses", "ip", " ".join(ADDRESSES[:3]))

    def routes(self, family: str) -> str:
        """As Source says."""
        return self._output(f"routes{family}", "ip", " ".join(routes_command(family)[:3]))

    def dump(self, interface: str) -> Printed:
        """As Source says; a probe has read all interfaces."""
        if interface != "all":
            raise WireGuardError(f"{interface} was not read by itself")
        found = self._section("dump")
        if found.returncode == _NOT_FOUND:
            raise missing("wg")
        return found

    def peers(self, interface: str) -> Printed:
        """As Source says; NotAsked when there was no second reading."""
        if "peers" not in self.sections:
            raise NotAsked("the peers were read once")
        found = self._section("peers")
        if found.returncode == _NOT_FOUND:
            raise missing("wg")
        if interface == "all":
            return found
        lines = (line.partition("\t") for line in found.stdout.splitlines())
        keys = "".join(f"{key}\n" for name, _tab, key in lines if name == interface)
        return found._replace(stdout=keys)

    def has_socket(self, interface: str) -> bool:
        """As Source says."""
        return f"/run/wireguard/{interface}.sock" in self._section("sockets").stdout.split()

    def file(self, path: str) -> File | None:
        """As Source says."""
        status = self._private.get(path)
        if status is None:
            return None
        if f"not-a-file {path}" in self.sections:
            raise WireGuardError(f"{path} cannot be read: it is no regular file")
        if f"head {path}" in self.sections:
            found = _DIGEST.match(self._of_file("digest", path))
            if found is None:
                raise CutShort(f"the digest of {path} is none")
            return File(self._of_file("head", path), status, found.group(1))
        return File(self._of_file("file", path), status)

    def units(self, interfaces: Sequence[str], config_dir: str) -> dict[str, Unit | None]:
        """As Source says."""
        if not interfaces or config_dir != DEFAULT_CONFIG_DIR or "units" not in self.sections:
            return dict.fromkeys(interfaces)
        return dict(systemd.parse_units(self._output("units", "systemctl", "systemctl show"), interfaces))

    def traces(self, config_dir: str) -> dict[str, str]:
        """As Source says."""
        if config_dir != DEFAULT_CONFIG_DIR:
            raise WireGuardError(f"{config_dir} was not looked into")
        names = self._output("names", "printf", "printf").splitlines()
        links = self._output("links", "printf", "printf").splitlines()
        return dict(traces.told_by(names, links))

    def _section(self, name: str) -> Printed:
        if name not in self.sections:
            raise CutShort(f"the node's answer has no {name}")
        return self.sections[name]

    def _output(self, name: str, program: str, command: str) -> str:
        found = self._section(name)
        if found.returncode == _NOT_FOUND:
            raise missing(program)
        if found.returncode != 0:
            raise CommandFailed(command, found.returncode, found.stderr or found.stdout)
        return found.stdout

    def _of_file(self, section: str, path: str) -> str:
        found = self._section(f"{section} {path}")
        if found.returncode != 0:
            raise WireGuardError(f"{path} cannot be read: {found.stderr.strip()[-200:] or 'no message'}")
        return found.stdout

    @cached_property
    def user(self) -> str:
        """The number of the user who has read."""
        return next(owner for _mode, owner, path in self._status if path.startswith("/proc/"))

    @cached_property
    def _private(self) -> dict[str, bool]:
        """By path of a config file that is there, whether nobody else may read it."""
        return {
            path: stat.S_ISREG(mode) and stat.S_IMODE(mode) == MODE and owner == self.user
            for mode, owner, path in self._status
        }

    @cached_property
    def _status(self) -> list[tuple[int, str, str]]:
        """Of the reading shell's own process and each config file that is there: mode, owner, path."""
        section = self._section("files")
        if section.returncode != 0:
            raise WireGuardError(f"config files cannot be looked at: exit code {section.returncode} of stat")
        found = []
        for line in section.stdout.splitlines():
            mode, owner, _size, path = (*line.split(" ", 3), "", "", "")[:4]
            if not path or re.fullmatch("[0-9a-f]+", mode) is None:
                raise CutShort("what stat says of config files cannot be understood")
            found.append((int(mode, 16), owner, path))
        if not found or not found[0][2].startswith("/proc/"):
            raise CutShort("what stat says of config files cannot be understood")
        return found


def _word(yes: bool) -> str:
    return "yes" if yes else "no"


def parse(printed: str, mark: str) -> Reading:
    """What a probe has printed. Raises CutShort when it is not all there."""
    first, *parts = printed.split(f"\n{mark} ")
    # Nothing but what a login shell may say comes before the first mark.
    if not parts or mark in first or parts.pop() != "end\n" or len(parts) % 2:
        if len(printed.encode("utf-8", "replace")) >= MOST:
            raise CutShort(f"the node's answer is longer than {MOST} bytes")
        raise CutShort("the node's answer is not complete")
    sections: dict[str, Printed] = {}
    for begun, ended in zip(parts[::2], parts[1::2], strict=True):
        name, newline, stdout = begun.partition("\n")
        equals, _blank, rest = ended.partition(" ")
        code, _newline, stderr = rest.partition("\n")
        if not newline or equals != "=" or not code.isdecimal() or name in sections:
            raise CutShort("the node's answer cannot be understood")
        sections[name] = Printed(int(code), stdout, stderr)
    return Reading(sections)
