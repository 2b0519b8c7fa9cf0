"""Launches in AWX that go wrong: one job, or none."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from api_shim.executor import Ended, Run
from api_shim.executor_awx import AwxExecutor
from tests.unit.api_shim import awx_runs
from tests.unit.api_shim.awx_runs import (
    LAUNCH,
    LONG,
    OPERATIONS,
    PACE,
    RUN,
    TEMPLATE,
    Execute,
    launches,
    no_one,
    settings,
)
from tests.unit.api_shim.awx_stand_in import AwxStandIn, Fault, Plan
from tests.unit.api_shim.until import until

awx = awx_runs.awx
template = awx_runs.template
execute = awx_runs.execute


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", LAUNCH, lost=True),
        Fault("POST", LAUNCH, hang=True),
        Fault("POST", LAUNCH, status_after=504),
        Fault("POST", LAUNCH, status_after=500),
        Fault("POST", LAUNCH, body="<h1>Bad gateway</h1>"),
        Fault("POST", LAUNCH, body="{}"),
    ],
    ids=["closed", "no answer in time", "504", "500", "page", "no job"],
)
def test_a_job_whose_launch_got_no_answer_is_found_and_not_doubled(
    awx: AwxStandIn, execute: Execute, fault: Fault
) -> None:
    awx.faults = [fault]
    assert execute() == Ended("successful", {"status": "done"})
    assert len(launches(awx)) == 1
    assert len(awx.jobs) == 1


@pytest.mark.usefixtures("template")
def test_a_job_that_appears_late_is_found(awx: AwxStandIn) -> None:
    awx.faults = [Fault("POST", LAUNCH, lost=True), Fault("GET", "jobs/", body='{"results": []}', times=3)]
    # Three looks are made in that time on any machine.
    executor = AwxExecutor(settings(awx), replace(PACE, settling=60))
    assert executor.execute(RUN, no_one, threading.Event()).status == "successful"
    executor.close()
    assert len(awx.jobs) == 1


def test_jobs_of_others_and_earlier_ones_are_not_taken_for_it(
    awx: AwxStandIn, template: int, execute: Execute
) -> None:
    mine = {"operations": list(OPERATIONS)}
    awx.add_job(template, mine, status="failed")
    other = awx.template("vpnfleet remove")
    awx.faults = [Fault("POST", LAUNCH, cut=True)]

    def crowd(*_: Any) -> None:
        until(lambda: awx.asked("POST", LAUNCH))
        awx.add_job(other, mine, status="failed")
        awx.add_job(template, {"operations": list(reversed(OPERATIONS))}, status="failed")
        awx.add_job(template, {"operations": [OPERATIONS[0]]}, status="failed")
        awx.add_job(template, {}, status="failed")

    thread = threading.Thread(target=crowd)
    thread.start()
    assert execute().status == "successful"
    thread.join()
    assert len(launches(awx)) == 2
    assert len(awx.jobs) == 6


@pytest.mark.usefixtures("template")
def test_when_it_cannot_be_seen_whether_there_is_a_job_nothing_is_launched_again(
    awx: AwxStandIn, execute: Execute
) -> None:
    awx.faults = [
        Fault("GET", "jobs/", body='{"results": []}'),
        Fault("POST", LAUNCH, lost=True),
        Fault("GET", "jobs/", status=503, times=10**6),
    ]
    ended = execute()
    assert ended.status == "error"
    assert "not launched again" in ended.message
    assert len(launches(awx)) == 1


def test_a_found_job_that_awx_plays_otherwise_is_cancelled(awx: AwxStandIn, execute: Execute) -> None:
    awx.template(TEMPLATE, ask_job_type_on_launch=False)
    awx.plan = Plan(statuses=LONG)
    awx.faults = [Fault("POST", LAUNCH, lost=True)]
    ended = execute(Run("r", "disconnect", OPERATIONS, check=True))
    assert ended.status == "error"
    assert "ask_job_type_on_launch" in ended.message
    assert awx.jobs[1000]["status"] == "canceled"


@pytest.mark.usefixtures("template")
def test_a_run_cancelled_while_its_launch_gets_no_answer_leaves_no_job(
    awx: AwxStandIn, execute: Execute
) -> None:
    awx.plan = Plan(statuses=LONG)
    awx.faults = [Fault("POST", LAUNCH, hang=True)]
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    assert execute(cancelled=cancelled).status == "canceled"
    assert [job["status"] for job in awx.jobs.values()] == ["canceled"]


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_launch_is_tried_again(awx: AwxStandIn, execute: Execute, status: int) -> None:
    awx.faults = [Fault("POST", LAUNCH, status=status, times=2)]
    assert execute().status == "successful"
    assert len(launches(awx)) == 3
    assert len(awx.jobs) == 1


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("status", [429, 503])
def test_a_launch_is_not_tried_forever(awx: AwxStandIn, execute: Execute, status: int) -> None:
    awx.faults = [Fault("POST", LAUNCH, status=status, times=10**6)]
    ended = execute()
    assert ended.status == "error"
    assert str(status) in ended.message
    assert len(launches(awx)) == PACE.attempts


def test_awx_that_is_not_there_is_an_error(awx: AwxStandIn) -> None:
    awx.close()
    executor = AwxExecutor(settings(awx), PACE)
    ended = executor.execute(RUN, no_one, threading.Event())
    executor.close()
    assert ended.status == "error"
    assert "cannot be reached" in ended.message
