"""Playbooks run as AWX's job templates, by AWX's REST API.

playbooks/awx.yml makes the templates; docs/awx.md says which rights the token needs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import httpx

from api_shim.awx_api import Api, Away, Trouble, answer_of, object_of, refusal, shortened
from api_shim.executor import Ended, Progress, Run, Tell
from api_shim.settings import Settings

_log = logging.getLogger(__name__)

_Final = Literal["successful", "failed", "canceled", "error"]
_FINAL = frozenset(("successful", "failed", "canceled", "error"))
_STEPS: Mapping[str, Literal["started", "done", "failed", "unreachable"]] = {
    "runner_on_start": "started",
    "runner_on_ok": "done",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}
# What lets a template take a field of the launch. AWX drops the field without it, and runs the job all the same.
_SWITCHES = {
    "extra_vars": "ask_variables_on_launch",
    "job_type": "ask_job_type_on_launch",
}


@dataclass(frozen=True)
class Pace:
    """How long is waited for what, in seconds."""

    answer: float = 30  # for one answer
    first_poll: float = 1  # between looks at a job, growing ...
    slowest_poll: float = 5  # ... to this
    patience: float = 240  # AWX may be away that long while a job is followed, or take that long to end one
    backoff: float = 1  # before the second attempt at a launch, doubled for each further one
    attempts: int = 4
    settling: float = 10  # a job whose launch got no answer is looked for that long
    events: float = 10  # for AWX to store the events of a job that has ended


class AwxExecutor:
    """Launches a playbook's job template and follows the job."""

    def __init__(self, settings: Settings, pace: Pace | None = None) -> None:
        """Raises ValueError, naming the setting, when one is missing or makes no sense."""
        self._pace = pace or Pace()
        self._run_timeout = settings.run_timeout
        self._templates: dict[str, int] = {}
        self._never = threading.Event()
        self._api = Api(settings, self._pace.answer)

    def execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:
        """Launch the job and follow it to its end; `cancelled` cancels it and waits until AWX has ended it."""
        try:
            return self._execute(run, tell, cancelled)
        except Trouble as trouble:
            return Ended("error", message=str(trouble))
        except Exception as error:
            # Its text could hold anything that AWX or a header said.
            _log.error("run %s: %s", run.id, type(error).__name__)
            return Ended("error", message=f"the run through AWX broke off: {type(error).__name__}")

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _execute(self, run: Run, tell: Tell, cancelled: threading.Event) -> Ended:
        deadline = time.monotonic() + self._run_timeout
        launched = self._launch(run, cancelled)
        if launched is None:
            return Ended("canceled")
        job, ignored = launched
        if ignored:
            # The job would run for real, or on nothing that was asked for.
            self._see_to_the_end(job, _no_one, cancelled, 0)
            return Ended("error", message=_ignored_message(run.playbook, ignored))
        state, counter, late = self._see_to_the_end(job, tell, cancelled, deadline)
        status = cast(_Final, state["status"])
        published = self._published(job, state)
        self._tell_events(job, counter, tell)
        if late and status != "successful":
            return Ended(
                "error", published, f"AWX's job {job} was ended: it took over {self._run_timeout:g} s"
            )
        if status == "error":
            told = shortened(state.get("job_explanation")) or "AWX gives no reason"
            return Ended("error", published, f"AWX's job {job} could not be run: {told}")
        # What fails before the playbook begins, such as an update of its inventory, has AWX's reason alone.
        return Ended(status, published, "" if published else shortened(state.get("job_explanation")))

    # Launching

    def _launch(self, run: Run, cancelled: threading.Event) -> tuple[int, Mapping[str, Any]] | None:
        """The job's id and the fields that AWX ignored. None: cancelled before there was a job.

        AWX takes each launch for a new one. So before a further attempt it is found out that there is no job of the
        one before.
        """
        wanted: dict[str, Any] = {
            "extra_vars": {"operations": list(run.operations)},
            "job_type": "check" if run.check else "run",
        }
        newest: int | None = None
        template = 0
        trouble = Trouble("")
        wait = 0.0
        for attempt in range(self._pace.attempts):
            if attempt:
                backoff = self._pace.backoff * 2 ** (attempt - 1)
                cancelled.wait(min(max(backoff, wait), self._pace.patience))
            if cancelled.is_set():
                return None
            wait = 0
            try:
                template = self._template(run.playbook)
                if newest is None:
                    newest = self._newest_job(template)
                response = self._api.request("POST", f"job_templates/{template}/launch/", json=wanted)
                if response.status_code == 404:
                    # Deleted, perhaps made anew, since it was looked up.
                    self._templates.pop(run.playbook, None)
                    newest = None
                    trouble = Trouble(f"AWX has no job template {_name(run.playbook)!r} any more")
                    continue
                return self._launched(response, run.playbook)
            except Away as away:
                trouble, wait = away, away.retry_after
                if newest is not None and away.maybe_done:
                    found = self._find_launched(template, newest, wanted, away)
                    if found is not None:
                        return found
        raise Trouble(f"the job was not launched: {trouble}")

    def _launched(self, response: httpx.Response, playbook: str) -> tuple[int, Mapping[str, Any]]:
        if response.status_code == 403:
            raise Trouble(
                f"the user of VPNFLEET_AWX_TOKEN may not execute AWX's job template {_name(playbook)!r}: give it "
                "the role Execute there, and the token the scope write"
            )
        if response.status_code != 201:
            raise Trouble(
                f"AWX does not launch {_name(playbook)!r} ({response.status_code}): "
                f"{shortened(refusal(response))}"
            )
        answer = object_of(response)
        job = answer.get("job")
        if not isinstance(job, int):
            raise Away("AWX's answer names no job", maybe_done=True)
        ignored = answer.get("ignored_fields") or {}
        return job, ignored if isinstance(ignored, Mapping) else {str(ignored): None}

    def _template(self, playbook: str) -> int:
        known = self._templates.get(playbook)
        if known is not None:
            return known
        name = _name(playbook)
        found = self._api.listed("job_templates/", name=name)["results"]
        if not found:
            raise Trouble(
                f"AWX shows the user of VPNFLEET_AWX_TOKEN no job template {name!r}: playbooks/awx.yml applies "
                "the templates, and the user needs the role Execute on them"
            )
        if len(found) > 1:
            raise Trouble(
                f"AWX has {len(found)} job templates {name!r}: keep the one that playbooks/awx.yml applies, and "
                "rename the others or hide them from the user of VPNFLEET_AWX_TOKEN"
            )
        self._templates[playbook] = int(found[0]["id"])
        return self._templates[playbook]

    def _newest_job(self, template: int) -> int:
        found = self._api.listed("jobs/", job_template=template, order_by="-id", page_size=1)["results"]
        return int(found[0]["id"]) if found else 0

    def _find_launched(
        self, template: int, newest: int, wanted: Mapping[str, Any], lost: Away
    ) -> tuple[int, Mapping[str, Any]] | None:
        """The job of a launch that got no answer, by its operations.

        AWX may still be at it: the job is looked for until a while has passed. Not even a cancelled run may leave one.
        Raises Trouble when AWX does not say.
        """
        deadline = time.monotonic() + self._pace.settling
        while True:
            unknown = False
            try:
                for job in self._api.newer("jobs/", "id", newest, job_template=template):
                    if _operations(job) == wanted["extra_vars"]["operations"]:
                        # Its list of ignored fields is lost with the answer.
                        differing = {
                            field: value
                            for field, value in wanted.items()
                            if field != "extra_vars" and job.get(field) != value
                        }
                        return int(job["id"]), differing
            except Away:
                unknown = True
            if time.monotonic() > deadline:
                break
            self._never.wait(self._pace.first_poll)
        if unknown:
            raise Trouble(
                f"{lost}; whether it launched the job cannot be seen, so it is not launched again now"
            )
        return None

    # Following

    def _see_to_the_end(
        self, job: int, tell: Tell, cancelled: threading.Event, deadline: float
    ) -> tuple[dict[str, Any], int, bool]:
        """The job when it has ended, the last event that was told, and whether the deadline ended it."""
        seen = time.monotonic()
        pause = self._pace.first_poll
        counter = 0
        ending = late = asked = False
        while True:
            now = time.monotonic()
            if not ending and (cancelled.is_set() or now > deadline):
                ending, late = True, not cancelled.is_set()
                # From now on the patience is for AWX to end it.
                seen, pause = now, self._pace.first_poll
            try:
                if ending and not asked:
                    asked = self._cancel(job)
                state = self._job(job)
                if not ending:
                    seen = time.monotonic()
                counter = self._tell_events(job, counter, tell)
                if state.get("status") in _FINAL:
                    return state, counter, late
            except Away as away:
                if time.monotonic() - seen > self._pace.patience:
                    raise Trouble(f"{away}; what became of its job {job} is not known") from None
            if ending and time.monotonic() - seen > self._pace.patience:
                raise Trouble(f"AWX has not ended its job {job}, which was cancelled")
            # Once it is set, `cancelled` no longer waits.
            (self._never if ending else cancelled).wait(pause)
            pause = min(self._pace.slowest_poll, pause * 1.3)

    def _job(self, job: int) -> dict[str, Any]:
        response = self._api.request("GET", f"jobs/{job}/")
        if response.status_code == 404:
            raise Trouble(f"AWX has no job {job} any more: it was deleted")
        return answer_of(response)

    def _cancel(self, job: int) -> bool:
        """405: it has ended already."""
        response = self._api.request("POST", f"jobs/{job}/cancel/")
        if response.status_code not in (202, 405):
            raise Trouble(
                f"AWX does not cancel its job {job} for the user of VPNFLEET_AWX_TOKEN ({response.status_code})"
            )
        return True

    def _tell_events(self, job: int, counter: int, tell: Tell) -> int:
        """Tell the events after `counter`, and return the last one's. Nothing that fails here matters to the run."""
        try:
            wanted = ",".join(_STEPS)
            for event in self._api.newer(f"jobs/{job}/job_events/", "counter", counter, event__in=wanted):
                counter = int(event["counter"])
                step = _STEPS[event["event"]]
                if step == "failed" and (event.get("event_data") or {}).get("ignore_errors"):
                    step = "done"
                tell(Progress(step, str(event.get("task") or ""), str(event.get("host_name") or "")))
        except Exception as error:
            _log.debug("job %d: its events cannot be read: %s", job, type(error).__name__)
        return counter

    def _published(self, job: int, state: dict[str, Any]) -> dict[str, Any] | None:
        """What the playbook published. AWX stores it with the events, somewhat after the job's end."""
        deadline = time.monotonic() + self._pace.events
        while not state.get("event_processing_finished") and time.monotonic() < deadline:
            self._never.wait(self._pace.first_poll / 4)
            try:
                state = self._job(job)
            except Away:
                continue
        artifacts = state.get("artifacts")
        published = artifacts.get("vpnfleet") if isinstance(artifacts, dict) else None
        return published if isinstance(published, dict) else None


def _no_one(progress: Progress) -> None:
    """For a job whose steps nobody is to hear of."""


def _name(playbook: str) -> str:
    return f"vpnfleet {playbook}"


def _operations(job: Mapping[str, Any]) -> Any:
    """Which operations a job was launched with; AWX gives its extra vars as a text."""
    try:
        variables = json.loads(job["extra_vars"])
    except (KeyError, TypeError, ValueError):
        return None
    return variables.get("operations") if isinstance(variables, dict) else None


def _ignored_message(playbook: str, ignored: Mapping[str, Any]) -> str:
    fields = ", ".join(sorted(ignored))
    switches = ", ".join(sorted(_SWITCHES[field] for field in ignored if field in _SWITCHES))
    remedy = f"switch on {switches} there" if switches else "look at its prompts"
    return (
        f"AWX's job template {_name(playbook)!r} ignores {fields}, so its job was cancelled: {remedy}, "
        "or run playbooks/awx.yml"
    )
