"""What Prometheus scrapes. Each application has its own numbers; what the registry says is read at each scrape.

Labels hold routes, kinds, states and names of nodes: nothing that a caller can make up, and no customer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import checks, looks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    NodeCheck,
    Operation,
    now,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8, 10)
_RUN_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900)


@dataclass(frozen=True)
class Snapshot:
    """What is read of the registry for one scrape."""

    operations: tuple[tuple[str, str, int], ...]  # kind, state, how many
    oldest_pending: datetime | None  # of those that have never begun
    last_seen: tuple[tuple[str, datetime], ...]  # node, when
    instances: tuple[tuple[str, str, int], ...]  # node, state, how many
    checks: tuple[tuple[str, NodeCheck], ...] = ()  # node, its last check
    fleet_look: datetime | None = None  # when a look at the whole fleet last ended well


def read_snapshot(registry: Registry) -> Snapshot:
    """Read it. Raises NotUsable."""
    with registry.read() as session:
        operations = session.execute(
            select(Operation.kind, Operation.state, func.count()).group_by(Operation.kind, Operation.state)
        ).all()
        oldest = session.scalar(
            select(func.min(Operation.created_at)).where(
                Operation.state == "pending", Operation.attempts == 0
            )
        )
        seen = session.execute(select(Node.name, Node.last_seen).where(Node.last_seen.is_not(None))).all()
        instances = session.execute(
            select(Node.name, Instance.state, func.count())
            .join(Node, Instance.node_id == Node.id)
            .group_by(Node.name, Instance.state)
        ).all()
        names = {row.id: row.name for row in session.execute(select(Node.id, Node.name))}
        last = [(names[number], check) for number, check in checks.latest(session).items()]
        fleet_look = looks.last_of_fleet(session)
    return Snapshot(
        tuple((kind, state, count) for kind, state, count in operations),
        oldest,
        tuple((name, at) for name, at in seen if at is not None),
        tuple((name, state, count) for name, state, count in instances),
        tuple(last),
        fleet_look,
    )


class Metrics:
    """The numbers of one application."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self._requests = Counter(
            "vpnfleet_http_requests", "Requests answered", ("method", "route", "status"), registry=self._own
        )
        self._request_seconds = Histogram(
            "vpnfleet_http_request_duration_seconds",
            "How long requests took",
            ("method", "route"),
            buckets=_REQUEST_SECONDS,
            registry=self._own,
        )
        self._runs = Counter(
            "vpnfleet_runs", "Runs of playbooks that ended", ("playbook", "status"), registry=self._own
        )
        self._run_seconds = Histogram(
            "vpnfleet_run_duration_seconds",
            "How long runs took",
            ("playbook",),
            buckets=_RUN_SECONDS,
            registry=self._own,
        )
        self._reachable = Gauge(
            "vpnfleet_node_reachable",
            "Whether the node answered when it was last asked",
            ("node",),
            registry=self._own,
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is a template, never a path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def count_run(self, playbook: str, status: str, seconds: float) -> None:
        """A run of a playbook ended."""
        self._runs.labels(playbook, status).inc()
        self._run_seconds.labels(playbook).observe(seconds)

    def set_reachable(self, node: str, reachable: bool) -> None:
        """A node was asked, and answered or not."""
        self._reachable.labels(node).set(1 if reachable else 0)

    def forget_node(self, node: str) -> None:
        """A node is no more."""
        try:
            self._reachable.remove(node)
        except KeyError:  # it was never asked
            pass

    def render(self, snapshot: Snapshot | None) -> bytes:
        """All numbers as text; `snapshot` is None when the registry cannot be read."""
        from_registry = CollectorRegistry()
        from_registry.register(_FromRegistry(snapshot))
        return generate_latest(self._own) + generate_latest(from_registry)


class _FromRegistry(Collector):
    def __init__(self, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The numbers of the snapshot."""
        found = self._snapshot
        yield GaugeMetricFamily(
            "vpnfleet_registry_up", "Whether the registry could be read", value=0 if found is None else 1
        )
        if found is None:
            return
        operations = GaugeMetricFamily(
            "vpnfleet_operations", "Operations in the registry", labels=("kind", "state")
        )
        for kind, state, count in found.operations:
            operations.add_metric((kind, state), count)
        yield operations
        age = (now() - found.oldest_pending).total_seconds() if found.oldest_pending else 0.0
        yield GaugeMetricFamily(
            "vpnfleet_operation_queue_age_seconds",
            "Age of the oldest pending operation that has never begun; 0: none waits",
            value=max(0.0, age),
        )
        seen = GaugeMetricFamily(
            "vpnfleet_node_last_seen_timestamp_seconds", "When a run last reached the node", labels=("node",)
        )
        for name, at in found.last_seen:
            seen.add_metric((name,), at.timestamp())
        yield seen
        instances = GaugeMetricFamily(
            "vpnfleet_instances", "Instances in the registry", labels=("node", "state")
        )
        for name, state, count in found.instances:
            instances.add_metric((name, state), count)
        yield instances
        if found.fleet_look is not None:
            yield GaugeMetricFamily(
                "vpnfleet_fleet_check_timestamp_seconds",
                "When a look at all enabled nodes, as VPNFLEET_DRIFT_INTERVAL has it done, last ended",
                value=found.fleet_look.timestamp(),
            )
        yield from _of_checks(found.checks)


def _of_checks(last: tuple[tuple[str, NodeCheck], ...]) -> Iterator[Metric]:
    """What each node's last check says. What that could not find out is missing, and not as it was before."""
    at = GaugeMetricFamily(
        "vpnfleet_node_check_timestamp_seconds",
        "When a look at the node, or a reconcile, last ended",
        labels=("node",),
    )
    reachable = GaugeMetricFamily(
        "vpnfleet_node_check_reachable", "Whether that reached the node", labels=("node",)
    )
    succeeded = GaugeMetricFamily(
        "vpnfleet_node_check_success", "Whether that could read the node", labels=("node",)
    )
    drift = GaugeMetricFamily("vpnfleet_node_drift", "Whether anything differed then", labels=("node",))
    issues = GaugeMetricFamily(
        "vpnfleet_node_drift_issues", "How much differed then", labels=("node", "kind")
    )
    for name, check in last:
        at.add_metric((name,), check.at.timestamp())
        reachable.add_metric((name,), check.state != checks.UNREACHABLE)
        succeeded.add_metric((name,), check.state == checks.OK)
        if check.has_drift is not None:
            drift.add_metric((name,), check.has_drift)
            for kind, count in checks.counts(check).items():
                issues.add_metric((name, kind), count)
    yield from (at, reachable, succeeded, drift, issues)
