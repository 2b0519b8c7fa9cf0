"""Rights that are given up are gone, and a process that keeps any does not go on: with real processes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import pwd
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.privileges import CannotDrop, drop
from tests.unit.plugins.module_utils.agent.user_namespace import (
    BY_ROOT,
    USER,
    become,
    ended,
    forked,
    forked_as_root,
)

NOBODY = pwd.getpwnam("nobody").pw_uid
_PR_GET_PDEATHSIG = 2


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def test_what_was_given_up_is_gone() -> None:
    def work() -> int:
        drop(USER)
        found, death = status(), ctypes.c_int()
        ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
        kept = "CapBnd" if not BY_ROOT else ""  # which only root can empty
        assert {
            found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if name != kept
        } == {"0" * 16}
        assert found["NoNewPrivs"] == "1"
        assert found["Uid"].split() == [str(pwd.getpwnam(USER).pw_uid)] * 4
        assert found["Gid"].split() == [str(pwd.getpwnam(USER).pw_gid)] * 4
        assert found["Groups"] == "" or not BY_ROOT
        assert [resource.getrlimit(what) for what in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC)] == [
            (0, 0)
        ] * 2
        assert death.value == 9
        # The second where there is no root at all, in a namespace of one who runs the tests.
        with pytest.raises(OSError, match=r"Operation not permitted|Invalid argument"):
            os.setuid(0)
        return 0

    assert ended(forked_as_root(work)) == 0


@pytest.mark.parametrize(
    ("user", "told"), [("no-such-user", "there is no user no-such-user"), ("root", "root is root")]
)
def test_nobody_else_or_root_cannot_be_become(user: str, told: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_NPROC), os.getresuid()
    with pytest.raises(CannotDrop, match=f"^{told}$"):
        drop(user)
    assert (resource.getrlimit(resource.RLIMIT_NPROC), os.getresuid()) == before


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "cannot become nobody: Operation not permitted"),  # a root that may set no groups
        (4321, "cannot become nobody"),  # no root, and somebody else
        (NOBODY, "capabilities are left"),
    ],
)
def test_who_cannot_give_up_all_of_them_does_not_go_on(number: int, told: str) -> None:
    assert refused(lambda: become(number)) == told


def test_where_programs_could_give_rights_back_it_does_not_go_on() -> None:
    assert refused(no_no_new_privs) == "the kernel does not know no_new_privs"


def no_no_new_privs() -> None:
    """As a kernel from before 3.5: by a filter that lets all through but this one call."""
    become(NOBODY)  # who has a capability may filter without it
    number = {"x86_64": 157, "aarch64": 167}[platform.machine()]
    steps = [
        (0x20, 0, 0, 0),  # the call's number
        (0x15, 0, 3, number),
        (0x20, 0, 0, 16),  # its first argument
        (0x15, 0, 1, 38),
        (0x06, 0, 0, 0x00050000 | errno.EINVAL),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0


def refused(before: Callable[[], None]) -> str:
    """What is told of a process that cannot give up its rights, after it has done something else."""
    reading, writing = os.pipe()

    def work() -> int:
        before()
        try:
            drop("nobody")
        except CannotDrop as error:
            os.write(writing, str(error).encode())
        return 0

    process = forked(work, [reading])
    os.close(writing)
    with os.fdopen(reading) as stream:
        told = stream.read()
    assert ended(process) == 0
    return told
