"""Runs in AWX that are cancelled."""

from __future__ import annotations

import threading

import pytest

from api_shim.executor import Ended, Progress
from tests.unit.api_shim import awx_runs
from tests.unit.api_shim.awx_runs import JOB, LONG, PACE, Execute
from tests.unit.api_shim.awx_stand_in import AwxStandIn, Fault, Plan
from tests.unit.api_shim.until import until

awx = awx_runs.awx
template = awx_runs.template
execute = awx_runs.execute


def cancel_while_it_runs(awx: AwxStandIn, execute: Execute) -> Ended:
    cancelled = threading.Event()
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(execute(cancelled=cancelled)))
    thread.start()
    until(lambda: len(awx.asked("GET", JOB)) > 2)
    cancelled.set()
    thread.join(10)
    return ended[0]


@pytest.mark.usefixtures("template")
def test_a_cancelled_run_waits_until_awx_has_ended_the_job(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(statuses=LONG, looks_until_canceled=6)
    assert cancel_while_it_runs(awx, execute).status == "canceled"
    assert awx.cancelled == [1000]
    assert awx.jobs[1000]["status"] == "canceled"


@pytest.mark.usefixtures("template")
def test_waiting_for_a_cancel_does_not_besiege_awx(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(statuses=LONG, deaf=True)
    ended = cancel_while_it_runs(awx, execute)
    assert ended.status == "error"
    assert "has not ended its job 1000" in ended.message
    assert len(awx.asked("GET", JOB)) < 2 * PACE.patience / PACE.slowest_poll
    assert awx.cancelled == [1000]


@pytest.mark.usefixtures("template")
def test_a_job_that_ended_before_its_cancel_ended_as_it_did(awx: AwxStandIn, execute: Execute) -> None:
    cancelled = threading.Event()
    awx.plan = Plan(statuses=("successful",), events=[{"counter": 1, "event": "runner_on_ok"}])
    # Set while the job's last look is under way: its events are read before its status is looked at.
    ended = execute(tell=lambda _: cancelled.set(), cancelled=cancelled)
    assert ended == Ended("successful", {"status": "done"})

    late = threading.Event()
    awx.jobs.clear()
    awx.plan = Plan(statuses=("running", "successful"), events=[{"counter": 1, "event": "runner_on_ok"}])

    def end_and_cancel(_: Progress) -> None:
        awx.jobs[1000]["status"] = "successful"
        late.set()

    assert execute(tell=end_and_cancel, cancelled=late).status == "successful"
    assert len(awx.asked("POST", r"jobs/\d+/cancel/")) == 1
    assert awx.cancelled == []


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    "fault", [Fault("POST", ".*/cancel/", status=502, times=2), Fault("POST", ".*/cancel/", lost=True)]
)
def test_a_cancel_that_is_not_answered_is_repeated(awx: AwxStandIn, execute: Execute, fault: Fault) -> None:
    awx.plan = Plan(statuses=LONG)
    awx.faults = [fault]
    assert cancel_while_it_runs(awx, execute).status == "canceled"
    assert awx.jobs[1000]["status"] == "canceled"


def test_a_run_that_is_cancelled_before_it_began_launches_nothing(
    awx: AwxStandIn, template: int, execute: Execute
) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert execute(cancelled=cancelled) == Ended("canceled")
    assert awx.requests == []
    assert template
