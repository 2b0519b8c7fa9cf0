"""Runs on a stand-in of AWX."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api_shim.executor import Ended, Executor, Progress, Run
from api_shim.executor_awx import AwxExecutor, Pace
from api_shim.settings import Settings
from tests.unit.api_shim.awx_stand_in import TOKEN, AwxStandIn, stand_in

OPERATIONS = ("0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002")
RUN = Run(id="run-1", playbook="disconnect", operations=OPERATIONS)
TEMPLATE = "vpnfleet disconnect"
PACE = Pace(
    answer=0.5,
    first_poll=0.01,
    slowest_poll=0.03,
    patience=1.5,
    backoff=0.02,
    attempts=3,
    settling=0.1,
    events=0.3,
)
LAUNCH = r"job_templates/\d+/launch/"
JOB = r"jobs/\d+/"
LONG = ("pending",) + ("running",) * 100_000


@pytest.fixture
def awx() -> Iterator[AwxStandIn]:
    with stand_in() as awx:
        yield awx


@pytest.fixture
def template(awx: AwxStandIn) -> int:
    awx.template("vpnfleet provision")
    return awx.template(TEMPLATE)


Execute = Callable[..., Ended]


def no_one(_: Progress) -> None:
    """For a run whose steps nobody looks at."""


def settings(awx: AwxStandIn, **more: Any) -> Settings:
    return Settings(**{"executor": "awx", "awx_url": awx.url, "awx_token": TOKEN, **more})


@pytest.fixture
def execute(awx: AwxStandIn) -> Iterator[Execute]:
    """Executes on one executor; `tell` and `cancelled` may be given."""
    executor: Executor = AwxExecutor(settings(awx), PACE)

    def run(
        run: Run = RUN,
        tell: Callable[[Progress], None] = no_one,
        cancelled: threading.Event | None = None,
    ) -> Ended:
        return executor.execute(run, tell, cancelled or threading.Event())

    yield run
    executor.close()


def launches(awx: AwxStandIn) -> list[Any]:
    return [one.body for one in awx.asked("POST", LAUNCH)]
