"""The OpenAPI document and its page."""

from __future__ import annotations

import re

from api_shim.problems import shape_of
from tests.unit.api_shim import on_sqlite
from tests.unit.api_shim.edge import Edge

registry_url = on_sqlite.registry_url


def test_every_call_says_what_can_come(edge: Edge) -> None:
    document = edge.client.get("/openapi.json").json()
    assert "/remove_instances/" in document["paths"]
    names = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names.append(operation["operationId"])
            statuses = set(operation["responses"])
            assert {"400", "405", "413", "500"} <= statuses
            if path.startswith(("/api", "/remove")):
                assert {"401", "403", "503"} <= statuses
                assert {"ApiKey": []} in operation["security"]
                assert {"Bearer": []} in operation["security"]
            else:
                assert "security" not in operation
            assert "{" not in path or "404" in statuses
            assert ("429" in statuses) == (
                path.startswith("/api/drift") or (method, path) == ("put", "/api/nodes/{node_id}")
            )
            for status, answer in operation["responses"].items():
                assert "X-Request-ID" in answer["headers"]
                if status == "401":
                    (sort,) = answer["content"]
                    assert sort == shape_of(path).media_type
            for status in ("404", "409", "410", "422", "500"):
                assert len(operation["responses"].get(status, {}).get("description", "x" * 20)) >= 20
            assert ("x-scopes" in operation) == ("security" in operation)
            if "requestBody" in operation:
                for status, answer in operation["responses"].items():
                    assert answer["content"][
                        "application/json" if status < "400" else next(iter(answer["content"]))
                    ]["schema"], (path, status)
    assert len(names) == len(set(names))
    disconnect = document["paths"]["/api/disconnect_instance/"]["post"]
    assert disconnect["x-scopes"] == ["billing", "ops"]
    assert {"Location"} <= set(disconnect["responses"]["500"]["headers"])
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name, schema in schemas.items():
        assert not {"ge", "le"} & set(re.findall(r"'(\w+)':", str(schema))), name
    limit = document["paths"]["/api/nodes"]["get"]["parameters"][0]["schema"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 500, 100)
    assert not re.search(r"gmail|portbro", str(document))


def test_the_page_lists_all_and_loads_nothing(edge: Edge) -> None:
    for path in ("/docs", "/docs/"):
        answer = edge.client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path, methods in edge.client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in answer.text
    assert not re.search(r"(?:src|href)=.?(?:https?:|//)|<script|<link|@import|url\(", answer.text)
    for told in ("body.instance", "at most 254 characters", "Scope of the key: `billing` or `ops`.",
                 "tried again by itself", "peers[].persistent_keepalive", "0 to 65535", "&quot;email&quot;: ",
                 "needed", "ipv4-network"):  # fmt: skip
        assert told in answer.text or told.replace("at most", "3 to") in answer.text, told


def test_the_root_is_as_before(edge: Edge) -> None:
    answer = edge.client.get("/")
    assert answer.content == b'{"msg":"VPN API is running"}'
    assert edge.client.get("/healthz").json() == {"status": "ok"}
    assert edge.client.get("/readyz").json() == {"status": "ok"}
