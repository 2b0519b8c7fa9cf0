"""A stand-in for AWX: a real HTTP server that answers as AWX does, and misbehaves when it is told to.

Jobs go a step further with each look at them, so that tests do not depend on a clock. Its objects (templates,
projects and so on) are kept by tests.unit.api_shim.awx_objects.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.unit.api_shim.awx_objects import Answer, Objects, listed

TOKEN = "a-token-of-awx"
FINAL = ("successful", "failed", "error", "canceled")
_PROMPTS = {
    "extra_vars": "ask_variables_on_launch",
    "limit": "ask_limit_on_launch",
    "job_type": "ask_job_type_on_launch",
    "diff_mode": "ask_diff_mode_on_launch",
}


@dataclass
class Plan:
    """What becomes of the jobs that are launched from now on."""

    statuses: Sequence[str] = ("pending", "waiting", "running", "successful")  # one for each look
    artifacts: dict[str, Any] = field(default_factory=lambda: {"vpnfleet": {"status": "done"}})
    explanation: str = ""
    events: Sequence[dict[str, Any]] = ()
    looks_until_stored: int = (
        1  # at the ended job, until its events are processed and its artifacts are there
    )
    looks_until_canceled: int = 2
    deaf: bool = False  # a cancel is accepted, and the job goes on


@dataclass
class Fault:
    """A misbehaviour for requests of this method whose path matches, so many times."""

    method: str
    path: str
    status: int = 0  # answer this, and do nothing
    status_after: int = 0  # do it, and answer this
    lost: bool = False  # do it, and close the connection without an answer
    cut: bool = False  # close the connection without doing it
    hang: bool = False  # do it, and answer nothing until the server is closed
    body: str | None = None  # do it, and answer this in place of JSON
    location: str = ""  # for a redirect
    times: int = 1


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str


class AwxStandIn:
    """The server; `url` is what VPNFLEET_AWX_URL is set to."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.plan = Plan()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.jobs: dict[int, dict[str, Any]] = {}
        self.cancelled: list[int] = []
        self.token = TOKEN
        self.executable = True  # whether the token's user may execute templates
        self.page_size = 200  # the largest page
        self._plans: dict[int, Plan] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def serve_tls(self, certificate: Path) -> None:
        """From now on: the file holds a key and its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def closed(self) -> bool:
        """Connections that are open still get no answer any more."""
        return self._closing.is_set()

    def template(self, name: str, **fields: Any) -> int:
        """A job template as playbooks/awx.yml makes it, but for `fields`."""
        return self.objects.add(
            "job_templates",
            name=name,
            **{"job_type": "run", **dict.fromkeys(_PROMPTS.values(), True), **fields},
        )

    def add_job(self, template: int, extra_vars: dict[str, Any], **fields: Any) -> int:
        with self._lock:
            return self._new_job(template, extra_vars, fields)

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests of this method whose path (after /api/v2/) matches."""
        return [one for one in self.requests if one.method == method and re.fullmatch(path, one.path)]

    def answer(self, request: Request) -> tuple[Answer | None, Fault | None]:
        """What is answered; None: nothing."""
        with self._lock:
            self.requests.append(request)
            fault = self._fault(request)
            if fault and fault.cut:
                return None, fault
            if fault and fault.status:
                return (fault.status, {"detail": "told to misbehave"}), fault
            answer = self._answer(request)
        if fault and fault.hang:
            self._closing.wait(60)
        if fault and (fault.lost or fault.hang):
            return None, fault
        if fault and fault.status_after:
            return (fault.status_after, {"detail": "told to misbehave"}), fault
        return answer, fault

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == request.method and re.fullmatch(fault.path, request.path):
                fault.times -= 1
                return fault
        return None

    def _answer(self, request: Request) -> Answer:
        if request.authorization != f"Bearer {self.token}":
            return 401, {"detail": "Authentication credentials were not provided."}
        path = request.path
        if found := re.fullmatch(r"job_templates/(\d+)/launch/", path):
            return self._launch(int(found[1]), request)
        if path == "jobs/":
            rows = [
                {
                    key: value
                    for key, value in job.items()
                    if key not in ("artifacts", "event_processing_finished")
                }
                for job in self.jobs.values()
            ]
            return listed(rows, request.query, path, self.page_size)
        if found := re.fullmatch(r"jobs/(\d+)/(job_events/|cancel/)?", path):
            job = self.jobs.get(int(found[1]))
            if job is None:
                return 404, {"detail": "Not found."}
            if found[2] == "cancel/":
                return self._cancel(job, request)
            if found[2]:
                rows = [dict(event) for event in self._plans[job["id"]].events]
                return listed(rows, request.query, path, self.page_size)
            self._look(job)
            return 200, dict(job)
        return self.objects.answer(request.method, path, request.query, request.body)

    def _launch(self, template_id: int, request: Request) -> Answer:
        template = self.objects.kinds["job_templates"].get(template_id)
        if template is None:
            return 404, {"detail": "Not found."}
        if request.method != "POST":
            return 405, {"detail": "Method not allowed."}
        if not self.executable:
            return 403, {"detail": "You do not have permission to perform this action."}
        spec = self.objects.surveys.get(template_id, {}).get("spec", []) if template["survey_enabled"] else []
        variables = dict(request.body.get("extra_vars", {}))
        missing = [one["variable"] for one in spec if one["required"] and one["variable"] not in variables]
        if missing:
            return 400, {"variables_needed_to_start": [f"'{name}' value missing" for name in missing]}
        taken: dict[str, Any] = {"limit": template["limit"], "job_type": template["job_type"]}
        ignored: dict[str, Any] = {}
        for name, value in request.body.items():
            if name == "extra_vars":
                known = {one["variable"] for one in spec}
                rejected = {
                    key: one
                    for key, one in variables.items()
                    if not template["ask_variables_on_launch"] and key not in known
                }
                variables = {key: one for key, one in variables.items() if key not in rejected}
                if rejected:
                    ignored["extra_vars"] = rejected
            elif name in _PROMPTS and value != template.get(name):
                if template[_PROMPTS[name]]:
                    taken[name] = value
                else:
                    ignored[name] = value
        for one in spec:  # a default counts as an answer
            if one.get("default") is not None:
                variables.setdefault(one["variable"], one["default"])
        job = self._new_job(template_id, variables, taken)
        return 201, {"job": job, "ignored_fields": ignored, **self.jobs[job]}

    def _new_job(self, template: int, extra_vars: dict[str, Any], fields: dict[str, Any]) -> int:
        number = 1000 + len(self.jobs)
        self._plans[number] = self.plan
        self.jobs[number] = {
            "id": number,
            "job_template": template,
            "status": "new",
            "extra_vars": json.dumps(extra_vars),
            "limit": "",
            "job_type": "run",
            "job_explanation": "",
            "artifacts": {},
            "event_processing_finished": False,
            "looks": 0,
            "looks_ended": 0,
            **fields,
        }
        return number

    def _look(self, job: dict[str, Any]) -> None:
        plan = self._plans[job["id"]]
        if job["status"] in FINAL:
            job["looks_ended"] += 1
            if job["looks_ended"] >= plan.looks_until_stored:
                job["event_processing_finished"] = True
                job["artifacts"] = plan.artifacts
            return
        if "canceled_at" in job and not plan.deaf:
            if job["looks"] - job["canceled_at"] >= plan.looks_until_canceled:
                job["status"] = "canceled"
        else:
            job["status"] = plan.statuses[min(job["looks"], len(plan.statuses) - 1)]
            if job["status"] in FINAL:
                job["job_explanation"] = plan.explanation
        job["looks"] += 1

    def _cancel(self, job: dict[str, Any], request: Request) -> Answer:
        if request.method != "POST" or job["status"] in FINAL:
            return 405, {"detail": 'Method "POST" not allowed.'}
        self.cancelled.append(job["id"])
        job.setdefault("canceled_at", job["looks"])
        return 202, None


@contextmanager
def stand_in() -> Iterator[AwxStandIn]:
    """One that runs."""
    awx = AwxStandIn()
    awx.start()
    try:
        yield awx
    finally:
        awx.close()


def _handler(awx: AwxStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet, or each waits for the client's acknowledgement

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            url = urlsplit(self.path)
            if not url.path.startswith("/api/v2/"):
                self._send(404, '{"detail": "Not found."}')
                return
            answer, fault = awx.answer(
                Request(
                    self.command,
                    url.path.removeprefix("/api/v2/"),
                    dict(parse_qsl(url.query)),
                    json.loads(raw) if raw else {},
                    self.headers.get("Authorization", ""),
                )
            )
            if answer is None or awx.closed:
                self.close_connection = True
                return
            status, body = answer
            text = (
                fault.body if fault and fault.body is not None else "" if body is None else json.dumps(body)
            )
            self._send(status, text, fault.location if fault else "")

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def _send(self, status: int, text: str, location: str = "") -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
