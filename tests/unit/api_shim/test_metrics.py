"""What Prometheus scrapes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    NodeCheck,
    Operation,
    now,
)
from api_shim.application import create_app
from api_shim.routes import health
from api_shim.service import Service
from tests.unit.api_shim.edge import INSTANCE, NODE, Edge
from tests.unit.plugins.plugin_utils.registry.rows import add_node


def scrape(edge: Edge) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = edge.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def of(numbers: dict[Any, float], name: str, **labels: str) -> float | None:
    return numbers.get((name, frozenset(labels.items())))


def test_requests_are_counted_by_route(edge: Edge) -> None:
    for path in ("/api/nodes/{node_id}", "/api/nodes/nobody", "/api/nodes/x%20y"):
        edge.call("GET", path, "read")
    for number in range(5):
        edge.client.get(f"/made/up/{number}")
        edge.client.request(f"BREW{number}", "/")
    numbers = scrape(edge)
    count = "vpnfleet_http_requests_total"
    assert of(numbers, count, method="GET", route="/api/nodes/{node_id}", status="200") == 1
    assert of(numbers, count, method="GET", route="/api/nodes/{node_id}", status="404") == 2
    assert of(numbers, count, method="GET", route="unmatched", status="404") == 5
    assert of(numbers, count, method="other", route="/", status="405") == 5
    seconds = "vpnfleet_http_request_duration_seconds_count"
    assert of(numbers, seconds, method="GET", route="/api/nodes/{node_id}") == 3


def test_what_the_registry_says_is_read_at_each_scrape(edge: Edge) -> None:
    numbers = scrape(edge)
    assert of(numbers, "vpnfleet_registry_up") == 1
    assert of(numbers, "vpnfleet_operation_queue_age_seconds") == 0
    assert of(numbers, "vpnfleet_instances", node=NODE, state="present") == 1
    assert not any(name == "vpnfleet_node_last_seen_timestamp_seconds" for name, _ in numbers)
    seen = now()
    with edge.registry.write() as session:
        old = now() - timedelta(seconds=100)
        session.add(Operation(kind="remove", instance_name=INSTANCE, created_at=old))
        session.add(
            Operation(
                kind="remove", instance_name="b@example.com", attempts=1, created_at=old - timedelta(days=1)
            )
        )
        session.add(Operation(kind="drift", state="failed", created_at=old - timedelta(days=9)))
        node = session.get(Node, edge.node_id)
        assert node is not None
        node.last_seen = seen
    numbers = scrape(edge)
    assert of(numbers, "vpnfleet_operations", kind="remove", state="pending") == 2
    assert of(numbers, "vpnfleet_operations", kind="drift", state="failed") == 1
    age = of(numbers, "vpnfleet_operation_queue_age_seconds")
    assert age is not None
    assert 100 <= age < 130
    at = of(numbers, "vpnfleet_node_last_seen_timestamp_seconds", node=NODE)
    assert at == pytest.approx(seen.timestamp(), abs=0.001)


def test_the_last_check_of_each_node(edge: Edge) -> None:
    assert not any(
        name.startswith(("vpnfleet_node_check", "vpnfleet_node_drift")) for name, _ in scrape(edge)
    )
    moment = now()
    found = {"missing": 1, "mismatched": 2, "unknown": 0, "interface": 4}
    with edge.registry.write() as session:
        down = add_node(session, "down.example.com", ip_pool_cidr="10.9.0.0/16", ip6_pool_cidr="fd00:9::/48")
        add_node(session, "new.example.com", ip_pool_cidr="10.10.0.0/16", ip6_pool_cidr="fd00:10::/48")
        for number, (when, state) in enumerate(
            (
                (moment - timedelta(minutes=5), "failed"),
                (moment, "ok"),
            )
        ):
            for node_id in (edge.node_id, down.id):
                drift = state == "ok" and node_id == edge.node_id
                session.add(
                    NodeCheck(
                        id=number * 2 + (node_id == down.id) + 1,
                        node_id=node_id,
                        kind="drift",
                        at=when,
                        state=state if drift else "unreachable",
                        has_drift=True if drift else None,
                        **{f"{kind}_count": count if drift else None for kind, count in found.items()},
                    )
                )
        session.add(
            Operation(
                kind="drift", request={"node": None}, state="succeeded", created_at=moment, finished_at=moment
            )
        )
        session.add(
            Operation(
                kind="drift",
                request={"node": NODE},
                state="succeeded",
                created_at=moment,
                finished_at=moment + timedelta(hours=1),
            )
        )
    numbers = scrape(edge)
    at = of(numbers, "vpnfleet_node_check_timestamp_seconds", node=NODE)
    assert at == pytest.approx(moment.timestamp(), abs=0.001)
    assert of(numbers, "vpnfleet_fleet_check_timestamp_seconds") == at
    for name, reached in ((NODE, 1), ("down.example.com", 0), ("new.example.com", None)):
        assert of(numbers, "vpnfleet_node_check_reachable", node=name) == reached
        assert of(numbers, "vpnfleet_node_check_success", node=name) == reached
        assert of(numbers, "vpnfleet_node_drift", node=name) == (1 if name == NODE else None)
        for kind, count in found.items():
            issues = of(numbers, "vpnfleet_node_drift_issues", node=name, kind=kind)
            assert issues == (count if name == NODE else None)


def test_runs_and_nodes_are_counted_by_whoever_sees_them(edge: Edge) -> None:
    metrics = edge.service.metrics
    metrics.count_run("disconnect", "successful", 1.5)
    metrics.count_run("disconnect", "failed", 2.5)
    metrics.set_reachable(NODE, True)
    metrics.set_reachable("gone.example.com", False)
    metrics.forget_node("gone.example.com")
    metrics.forget_node("never.example.com")
    numbers = scrape(edge)
    assert of(numbers, "vpnfleet_runs_total", playbook="disconnect", status="successful") == 1
    assert of(numbers, "vpnfleet_run_duration_seconds_sum", playbook="disconnect") == 4
    assert of(numbers, "vpnfleet_node_reachable", node=NODE) == 1
    assert of(numbers, "vpnfleet_node_reachable", node="gone.example.com") is None


def test_without_a_registry_the_rest_is_there(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise NotUsable("away")

    monkeypatch.setattr(Registry, "read", away)
    numbers = scrape(edge)
    assert of(numbers, "vpnfleet_registry_up") == 0
    answer = edge.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "unavailable", "reason": "the registry cannot be read"},
    )
    assert edge.client.get("/healthz").status_code == 200


def test_a_registry_that_hangs_holds_nobody_up(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.1)
    monkeypatch.setattr(Registry, "read", lambda _: time.sleep(0.8))
    assert of(scrape(edge), "vpnfleet_registry_up") == 0
    assert edge.client.get("/readyz").status_code == 503
    assert edge.client.get("/healthz").status_code == 200


def test_each_application_has_its_own(service: Service) -> None:
    create_app(service)
    create_app(Service(service.settings, service.registry))
