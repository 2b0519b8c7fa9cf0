"""Many that write at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotFound, NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
from api_shim.recorder import Recorder
from tests.unit.api_shim.edge import Edge


@dataclass(frozen=True)
class Counted(Registry):
    """Counts its transactions; `broken` are the numbers of those that fail at their end, counted from 1."""

    broken: tuple[int, ...] = ()
    transactions: list[int] = field(default_factory=list)

    @contextmanager
    def write(self, keep: bool = True) -> Iterator[Session]:
        with super().write(keep) as session:
            yield session
            self.transactions.append(1)
            if len(self.transactions) in self.broken:
                raise NotUsable("gone")


def note(subject: str) -> AuditEntry:
    return AuditEntry(actor="tests", action="noted", subject=subject, result="success")


def noted(edge: Edge) -> set[str]:
    with edge.registry.read() as session:
        return set(session.scalars(select(AuditEntry.subject).where(AuditEntry.action == "noted")))


def test_those_who_wait_are_written_together_and_errors_are_their_own(edge: Edge) -> None:
    registry = Counted(edge.registry.engine)
    recorder = Recorder(registry)
    first, go = threading.Event(), threading.Event()

    def slow(session: Session) -> str:
        session.add(note("slow"))
        first.set()
        assert go.wait(30)
        return "slow"

    def one(number: int) -> str:
        def work(session: Session) -> str:
            session.add(note(str(number)))
            session.flush()
            if number % 10 == 0:
                raise NotFound(str(number))
            return str(number)

        try:
            return recorder.write(work)
        except NotFound as error:
            return f"not {error}"

    with ThreadPoolExecutor(41) as pool:
        ahead = pool.submit(recorder.write, slow)
        assert first.wait(30)
        others = [pool.submit(one, number) for number in range(40)]
        while len(recorder._waiting) < 40:
            threading.Event().wait(0.01)
        go.set()
        told = [other.result(60) for other in others]
        assert ahead.result(60) == "slow"

    good = {str(number) for number in range(40) if number % 10}
    assert told == [str(number) if number % 10 else f"not {number}" for number in range(40)]
    assert noted(edge) == {"slow", *good}
    assert len(registry.transactions) == 2


def test_what_is_not_committed_is_told_to_all(edge: Edge) -> None:
    recorder = Recorder(Counted(edge.registry.engine, broken=(1,)))
    with pytest.raises(NotUsable):
        recorder.write(lambda session: session.add(note("lost")))
    recorder.write(lambda session: session.add(note("kept")))
    assert noted(edge) == {"kept"}
