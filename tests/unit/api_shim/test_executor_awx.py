"""The executor that has AWX run the playbooks: what it launches, and how it follows it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from api_shim.executor import Ended, Progress, Run
from api_shim.executor_awx import AwxExecutor
from tests.unit.api_shim import awx_runs
from tests.unit.api_shim.awx_runs import (
    JOB,
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
from tests.unit.api_shim.awx_stand_in import TOKEN, AwxStandIn, Fault, Plan
from tests.unit.api_shim.until import until

awx = awx_runs.awx
template = awx_runs.template
execute = awx_runs.execute


def test_a_job_is_launched_with_ids_alone(awx: AwxStandIn, template: int, execute: Execute) -> None:
    assert execute() == Ended("successful", {"status": "done"})
    assert launches(awx) == [
        {
            "extra_vars": {"operations": list(OPERATIONS)},
            "job_type": "run",
        }
    ]
    assert [one.path for one in awx.asked("POST", ".*")] == [f"job_templates/{template}/launch/"]
    assert {one.authorization for one in awx.requests} == {f"Bearer {TOKEN}"}


@pytest.mark.usefixtures("template")
def test_check_is_a_job_type(awx: AwxStandIn, execute: Execute) -> None:
    assert execute(Run("r", "disconnect", OPERATIONS, check=True)).status == "successful"
    assert launches(awx) == [{"extra_vars": {"operations": list(OPERATIONS)}, "job_type": "check"}]


def test_a_template_that_someone_set_to_check_runs_for_real(awx: AwxStandIn, execute: Execute) -> None:
    awx.template(TEMPLATE, job_type="check")
    assert execute().status == "successful"
    assert [job["job_type"] for job in awx.jobs.values()] == ["run"]


@pytest.mark.usefixtures("template")
def test_a_template_is_looked_up_once_and_again_when_it_is_gone(awx: AwxStandIn, execute: Execute) -> None:
    execute()
    execute()
    assert [one.query["name"] for one in awx.asked("GET", "job_templates/")] == [TEMPLATE]
    awx.objects.kinds["job_templates"].clear()
    made_anew = awx.template(TEMPLATE) + 7
    awx.objects.kinds["job_templates"] = {
        made_anew: {**awx.objects.one("job_templates", TEMPLATE), "id": made_anew}
    }
    assert execute().status == "successful"
    assert list(awx.jobs.values())[-1]["job_template"] == made_anew


def test_no_template_is_an_error_that_says_who_makes_it(awx: AwxStandIn, execute: Execute) -> None:
    awx.template("vpnfleet disconnect old")
    ended = execute()
    assert ended.status == "error"
    assert TEMPLATE in ended.message
    assert "playbooks/awx.yml" in ended.message
    assert launches(awx) == []


@pytest.mark.usefixtures("template")
def test_two_templates_of_the_name_are_an_error(awx: AwxStandIn, execute: Execute) -> None:
    awx.template(TEMPLATE)
    ended = execute()
    assert ended.status == "error"
    assert "2 job templates" in ended.message
    assert "playbooks/awx.yml" in ended.message
    assert launches(awx) == []


@pytest.mark.parametrize(
    ("switch", "field"),
    [
        ("ask_variables_on_launch", "extra_vars"),
        ("ask_job_type_on_launch", "job_type"),
    ],
)
def test_an_ignored_field_cancels_the_job_and_says_what_to_switch_on(
    awx: AwxStandIn, execute: Execute, switch: str, field: str
) -> None:
    awx.template(TEMPLATE, **{switch: False})
    awx.plan = Plan(statuses=LONG)
    ended = execute(Run("r", "disconnect", OPERATIONS, check=True))
    assert ended.status == "error"
    assert ended.published is None
    assert switch in ended.message
    assert field in ended.message
    (job,) = awx.jobs.values()
    assert awx.cancelled == [job["id"]]
    assert job["status"] == "canceled"


def test_an_ignored_field_is_an_error_of_a_job_that_was_quicker_than_the_cancel(
    awx: AwxStandIn, execute: Execute
) -> None:
    awx.template(TEMPLATE, ask_job_type_on_launch=False)
    awx.plan = Plan(statuses=("successful",))
    awx.faults = [Fault("POST", r"jobs/\d+/cancel/", status=500)]
    ended = execute(Run("r", "disconnect", OPERATIONS, check=True))
    assert ended.status == "error"
    assert "ask_job_type_on_launch" in ended.message


def test_a_required_question_is_told(awx: AwxStandIn, execute: Execute) -> None:
    template = awx.template(TEMPLATE, survey_enabled=True)
    awx.objects.surveys[template] = {"spec": [{"variable": "instance", "required": True}]}
    ended = execute()
    assert ended.status == "error"
    assert "instance" in ended.message
    assert "400" in ended.message


# Following


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("status", ["successful", "failed", "canceled", "error"])
def test_a_job_ends_as_awx_says(awx: AwxStandIn, execute: Execute, status: str) -> None:
    awx.plan = Plan(
        statuses=("new", "pending", "waiting", "running", "running", status), explanation="no capacity"
    )
    ended = execute()
    assert ended.status == status
    assert ended.published == {"status": "done"}
    assert ("no capacity" in ended.message) == (status == "error")
    assert awx.cancelled == []


@pytest.mark.usefixtures("template")
def test_a_job_that_fails_before_its_playbook_begins_has_awxs_reason(
    awx: AwxStandIn, execute: Execute
) -> None:
    awx.plan = Plan(statuses=("pending", "failed"), artifacts={}, explanation="Previous Task Failed")
    assert execute() == Ended("failed", None, "Previous Task Failed")


@pytest.mark.usefixtures("template")
def test_artifacts_are_read_when_the_events_are_stored(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(looks_until_stored=3)
    assert execute().published == {"status": "done"}


@pytest.mark.usefixtures("template")
def test_events_that_are_never_stored_are_not_waited_for_forever(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(looks_until_stored=10**9)
    assert execute() == Ended("successful", None)


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("artifacts", [{}, {"other": 1}, {"vpnfleet": "text"}, {"vpnfleet": None}])
def test_what_is_no_result_is_not_published(
    awx: AwxStandIn, execute: Execute, artifacts: dict[str, Any]
) -> None:
    awx.plan = Plan(artifacts=artifacts)
    assert execute() == Ended("successful", None)


@pytest.mark.usefixtures("template")
def test_progress_comes_from_the_events_once_and_in_order(awx: AwxStandIn, execute: Execute) -> None:
    def event(counter: int, name: str, **more: Any) -> dict[str, Any]:
        return {"counter": counter, "event": name, "task": "Take down", "host_name": "de1", **more}

    awx.page_size = 2
    awx.plan = Plan(
        statuses=("running",) * 4 + ("failed",),
        events=[
            event(1, "playbook_on_start"),
            event(2, "runner_on_start"),
            event(3, "runner_on_ok"),
            event(5, "runner_on_failed", event_data={"ignore_errors": True}),
            event(6, "runner_on_failed", event_data={}),
            event(9, "runner_on_unreachable", host_name="nl1"),
            event(10, "playbook_on_stats"),
        ],
    )
    told: list[Progress] = []
    assert execute(tell=told.append).status == "failed"
    assert told == [
        Progress("started", "Take down", "de1"),
        Progress("done", "Take down", "de1"),
        Progress("done", "Take down", "de1"),
        Progress("failed", "Take down", "de1"),
        Progress("unreachable", "Take down", "nl1"),
    ]


@pytest.mark.usefixtures("template")
def test_events_that_cannot_be_read_do_not_end_a_run(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [
        Fault("GET", r"jobs/\d+/job_events/", status=500),
        Fault("GET", r"jobs/\d+/job_events/", body="no JSON"),
        Fault("GET", r"jobs/\d+/job_events/", body='{"results": [{"counter": "x"}]}'),
        Fault("GET", r"jobs/\d+/job_events/", status=403, times=99),
    ]
    assert execute().status == "successful"


@pytest.mark.usefixtures("template")
def test_whoever_is_told_may_fail(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(events=[{"counter": 1, "event": "runner_on_ok", "task": "", "host_name": ""}])

    def tell(_: Progress) -> None:
        raise RuntimeError

    assert execute(tell=tell).status == "successful"


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", JOB, status=500, times=5),
        Fault("GET", JOB, status=429, times=5),
        Fault("GET", JOB, cut=True, times=5),
        Fault("GET", JOB, body="<h1>Maintenance</h1>", times=5),
        Fault("GET", JOB, hang=True),
    ],
    ids=["500", "429", "cut", "page", "hang"],
)
def test_awx_may_be_away_for_a_while(awx: AwxStandIn, execute: Execute, fault: Fault) -> None:
    awx.faults = [fault]
    assert execute().status == "successful"
    assert len(launches(awx)) == 1


@pytest.mark.usefixtures("template")
def test_awx_that_stays_away_is_an_error_that_names_the_job(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [Fault("GET", JOB, cut=True, times=10**6)]
    before = time.monotonic()
    ended = execute()
    assert ended.status == "error"
    assert "job 1000" in ended.message
    assert time.monotonic() - before >= PACE.patience


@pytest.mark.usefixtures("template")
def test_awx_that_dies_in_the_middle_is_an_error(awx: AwxStandIn, execute: Execute) -> None:
    awx.plan = Plan(statuses=LONG)
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(execute()))
    thread.start()
    until(lambda: awx.asked("GET", JOB))
    awx.close()
    thread.join(10)
    assert [one.status for one in ended] == ["error"]
    assert "cannot be reached" in ended[0].message or "did not answer" in ended[0].message


@pytest.mark.usefixtures("template")
def test_a_job_that_is_deleted_is_an_error(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [Fault("GET", JOB, status=404)]
    ended = execute()
    assert ended.status == "error"
    assert "deleted" in ended.message


@pytest.mark.usefixtures("template")
def test_a_job_that_takes_too_long_is_ended(awx: AwxStandIn) -> None:
    awx.plan = Plan(statuses=LONG)
    executor = AwxExecutor(settings(awx, run_timeout=0.2), PACE)
    ended = executor.execute(RUN, no_one, threading.Event())
    executor.close()
    assert ended.status == "error"
    assert "0.2 s" in ended.message
    assert awx.cancelled == [1000]
    assert awx.jobs[1000]["status"] == "canceled"
