"""Labs for the end-to-end tests: one that they share, and fresh ones for tests that break theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.lab.errors import LabError
from tests.lab.fleet import Lab


class FreshLab(Protocol):
    """Builds a lab of this size, up, with a name of its own."""

    def __call__(self, nodes: int = 1, devices: int = 0) -> Lab: ...


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of two nodes and three devices, shared by the tests of a session: leave it as you found it."""
    lab = Lab(name=f"t{os.getpid()}", nodes=2, devices=3)
    _up(lab)
    yield lab
    lab.down()


@pytest.fixture
def fresh_lab() -> Iterator[FreshLab]:
    """Labs that are the test's own, as many as it asks for."""
    labs: list[Lab] = []

    def build(nodes: int = 1, devices: int = 0) -> Lab:
        lab = Lab(name=f"t{os.getpid()}-{len(labs) + 1}", nodes=nodes, devices=devices)
        labs.append(lab)
        _up(lab)
        return lab

    yield build
    for lab in labs:
        lab.down()


def _up(lab: Lab) -> None:
    """A lab that cannot be built is a failure, not a reason to skip: what it would have shown is not shown."""
    try:
        lab.up()
    except LabError as error:
        pytest.fail(f"no lab: {error}", pytrace=False)
