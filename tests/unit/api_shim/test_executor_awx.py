"""The executor that runs playbooks as AWX's job templates, against a stand-in for AWX."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api_shim.executor import Ended, Executor, Progress, Run
from api_shim.executor_awx import AwxExecutor, Pace
from api_shim.settings import Settings
from tests.unit.api_shim.awx_stand_in import TOKEN, AwxStandIn, Fault, Plan, stand_in

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


def wait_for(what: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Launching


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
    wait_for(lambda: awx.asked("GET", JOB))
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


# Cancelling


def cancel_while_it_runs(awx: AwxStandIn, execute: Execute) -> Ended:
    cancelled = threading.Event()
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(execute(cancelled=cancelled)))
    thread.start()
    wait_for(lambda: len(awx.asked("GET", JOB)) > 2)
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


# Launches that go wrong


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
def test_a_job_that_appears_late_is_found(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [Fault("POST", LAUNCH, lost=True), Fault("GET", "jobs/", body='{"results": []}', times=3)]
    assert execute().status == "successful"
    assert len(awx.jobs) == 1


def test_jobs_of_others_and_earlier_ones_are_not_taken_for_it(
    awx: AwxStandIn, template: int, execute: Execute
) -> None:
    mine = {"operations": list(OPERATIONS)}
    awx.add_job(template, mine, status="failed")
    other = awx.template("vpnfleet remove")
    awx.faults = [Fault("POST", LAUNCH, cut=True)]

    def crowd(*_: Any) -> None:
        wait_for(lambda: awx.asked("POST", LAUNCH))
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


# The token and its rights


@pytest.mark.usefixtures("template")
def test_a_wrong_token_names_its_setting_and_is_not_repeated(awx: AwxStandIn, execute: Execute) -> None:
    awx.token = "another"
    ended = execute()
    assert ended.status == "error"
    assert "VPNFLEET_AWX_TOKEN" in ended.message
    assert len(awx.requests) == 1


@pytest.mark.usefixtures("template")
def test_a_token_without_the_right_to_execute_is_told(awx: AwxStandIn, execute: Execute) -> None:
    awx.executable = False
    ended = execute()
    assert ended.status == "error"
    assert "VPNFLEET_AWX_TOKEN" in ended.message
    assert "Execute" in ended.message


@pytest.mark.usefixtures("template")
def test_a_token_that_is_revoked_while_the_job_runs_is_told(awx: AwxStandIn, execute: Execute) -> None:
    awx.faults = [Fault("GET", JOB, status=401)]
    assert "VPNFLEET_AWX_TOKEN" in execute().message


@pytest.mark.usefixtures("template")
def test_the_token_follows_no_redirect(awx: AwxStandIn, execute: Execute) -> None:
    with stand_in() as elsewhere:
        awx.faults = [
            Fault("GET", "job_templates/", status=302, location=f"{elsewhere.url}/api/v2/job_templates/")
        ]
        ended = execute()
        assert ended.status == "error"
        assert "VPNFLEET_AWX_URL" in ended.message
        assert elsewhere.requests == []


@pytest.mark.usefixtures("template")
def test_links_in_answers_are_not_followed(awx: AwxStandIn, execute: Execute) -> None:
    with stand_in() as elsewhere:
        body = f'{{"results": [{{"id": 1}}], "next": "{elsewhere.url}/api/v2/jobs/?page=2"}}'
        awx.faults = [Fault("POST", LAUNCH, lost=True), Fault("GET", "jobs/", body=body)]
        assert execute().status == "successful"
        assert elsewhere.requests == []


@pytest.mark.usefixtures("template")
def test_the_token_is_in_no_message_and_no_log(
    awx: AwxStandIn, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for fault in (
        Fault("GET", "job_templates/", status=401),
        Fault("GET", "job_templates/", status=400),
        Fault("POST", LAUNCH, status=403),
        Fault("POST", LAUNCH, status=400),
        Fault("POST", LAUNCH, status=503, times=10),
        Fault("GET", JOB, status=401),
        Fault("GET", JOB, body='{"status": 1', times=10**6),
    ):
        awx.faults = [fault]
        said.append(execute().message)
    assert all(said)
    assert TOKEN not in "".join(said)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"awx_url": ""}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "ftp://awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_url": "https://user:secret@awx.example.com"}, "VPNFLEET_AWX_URL"),
        ({"awx_token": ""}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_token": f"{TOKEN}\n"}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_token": f"{TOKEN} é"}, "VPNFLEET_AWX_TOKEN"),
        ({"awx_ca": Path("/nowhere/ca.pem")}, "VPNFLEET_AWX_CA"),
        ({"awx_ca": Path(__file__)}, "VPNFLEET_AWX_CA"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(awx: AwxStandIn, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        AwxExecutor(settings(awx, **change))
    assert TOKEN not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "awx.example.com")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path / "awx.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(pem)
    )
    return path


def test_awx_is_trusted_by_its_certificate_alone(awx: AwxStandIn, template: int, certificate: Path) -> None:
    assert template
    awx.serve_tls(certificate)
    for ca, status in ((None, "error"), (certificate, "successful")):
        executor = AwxExecutor(settings(awx, awx_ca=ca), PACE)
        ended = executor.execute(RUN, no_one, threading.Event())
        executor.close()
        assert ended.status == status
        assert ("certificate" in ended.message) == (status == "error")
        assert bool(awx.requests) == (status == "successful")


@pytest.mark.usefixtures("template")
def test_several_threads_run_at_once(awx: AwxStandIn, execute: Execute) -> None:
    ended: list[Ended] = []
    runs = [Run(str(number), "disconnect", (f"id-{number}",)) for number in range(8)]
    threads = [threading.Thread(target=lambda run=run: ended.append(execute(run))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [one.status for one in ended] == ["successful"] * 8
    assert sorted(one["extra_vars"]["operations"][0] for one in launches(awx)) == [
        f"id-{n}" for n in range(8)
    ]
