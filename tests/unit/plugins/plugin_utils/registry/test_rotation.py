"""Rotating the encryption key: everything is encrypted anew, once, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, insert, select, text

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import rotation, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Instance,
    Node,
    Operation,
    Peer,
)
from tests.postgres.opened import opened

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TOKENS = {
    "node.agent_secret": "SELECT agent_secret FROM node WHERE agent_secret IS NOT NULL ORDER BY id",
    "node.agent_secret_next": "SELECT agent_secret_next FROM node WHERE agent_secret_next IS NOT NULL ORDER BY id",
    "instance.private_key": "SELECT private_key FROM instance ORDER BY id",
    "peer.private_key": "SELECT private_key FROM peer WHERE private_key IS NOT NULL ORDER BY id",
    "peer.preshared_key": "SELECT preshared_key FROM peer WHERE preshared_key IS NOT NULL ORDER BY id",
}


@pytest.fixture
def registry(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Three instances of five peers each, of which some have a secret, and two operations; by the key OLD."""
    monkeypatch.setenv(secrets.VARIABLE, OLD)
    registry = opened(registry_url)
    with registry.write() as session:
        node = Node(
            name="n1",
            ip_pool_cidr="10.1.0.0/16",
            ip6_pool_cidr="fd00:1::/48",
            agent_secret="of the agent",
            agent_secret_next="the agent's next",
            updated_at=LONG_AGO,
        )
        session.add(node)
        session.flush()
        for number in range(3):
            instance = an_instance(node, number)
            session.add(instance)
            session.flush()
            session.add_all(a_peer(instance, number, which) for which in range(5))
        session.add_all(
            [
                Operation(
                    id="a", kind="provision", request={"x": [{"peers_sealed": seal("p")}, 1], "y": "z"}
                ),
                Operation(id="b", kind="remove", request={"sealed": "no_sealed", "other": ['_sealed"']}),
            ]
        )
    yield registry
    registry.close()


def an_instance(node: Node, number: int) -> Instance:
    return Instance(
        name=f"c{number}@example.com",
        node_id=node.id,
        listen_port=51820 + number,
        public_key=f"i{number}",
        private_key=f"secret of {number}",
        subnet=f"10.1.{number}.0/24",
        subnet6=f"fd00:1:0:{number}::/64",
        updated_at=LONG_AGO,
    )


def a_peer(instance: Instance, number: int, which: int) -> Peer:
    return Peer(
        instance_id=instance.id,
        public_key=f"p{number}.{which}",
        private_key=f"private {number}.{which}" if which < 3 else None,
        preshared_key=f"shared {number}.{which}" if which == 1 else None,
        updated_at=LONG_AGO,
    )


def seal(plain: str) -> str:
    return secrets.cipher().encrypt(plain.encode()).decode()


def tokens(registry: Registry) -> dict[str, list[str]]:
    with registry.read() as session:
        found = {name: list(session.scalars(text(query))) for name, query in TOKENS.items()}
        sealed = session.scalars(select(Operation.request).where(Operation.id == "a")).one()["x"][0]
        return {**found, "operation.request": list(sealed.values())}


def decrypted(registry: Registry, key: str) -> dict[str, list[str]]:
    return {
        name: sorted(Fernet(key).decrypt(token).decode() for token in found)
        for name, found in tokens(registry).items()
    }


def test_all_columns_with_secrets_are_found() -> None:
    assert [str(column) for column in rotation.encrypted_columns()] == list(TOKENS)


def test_every_secret_is_encrypted_by_the_first_key(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_BATCH", 2)  # so that there are several
    plain = decrypted(registry, OLD)
    secrets.use([NEW, OLD])

    with registry.write() as session:
        counts = rotation.rotate(session)

    assert counts == {
        "node.agent_secret": 1,
        "node.agent_secret_next": 1,
        "instance.private_key": 3,
        "peer.private_key": 9,
        "peer.preshared_key": 3,
        "operation.request": 1,
    }
    assert decrypted(registry, NEW) == plain
    secrets.use([NEW])
    with registry.read() as session:
        assert session.scalars(select(Instance.private_key).order_by(Instance.id)).first() == "secret of 0"


def test_nothing_else_changes(registry: Registry) -> None:
    before = everything_else(registry)
    assert LONG_AGO.isoformat(sep=" ") in before  # when a row was changed, too
    secrets.use([NEW, OLD])
    with registry.write() as session:
        rotation.rotate(session)
    assert everything_else(registry) == before


def test_a_second_run_has_nothing_to_do(registry: Registry) -> None:
    secrets.use([NEW, OLD])
    with registry.write() as session:
        rotation.rotate(session)
    done = tokens(registry)
    with registry.write() as session:
        counts = rotation.rotate(session)
    assert set(counts.values()) == {0}
    assert tokens(registry) == done


def test_what_is_encrypted_by_the_first_key_is_left_alone(registry: Registry) -> None:
    secrets.use([NEW, OLD])
    with registry.write() as session:
        any_instance = select(func.min(Instance.id)).scalar_subquery()
        session.execute(insert(Peer).values(instance_id=any_instance, public_key="new", private_key="new"))
        counts = rotation.rotate(session)
    assert counts["peer.private_key"] == 9


def test_check_mode_counts_and_keeps_nothing(registry: Registry) -> None:
    before = tokens(registry)
    secrets.use([NEW, OLD])
    with registry.write(keep=False) as session:
        assert rotation.rotate(session)["instance.private_key"] == 3
    assert tokens(registry) == before


def test_a_secret_that_no_key_fits_stops_all_of_it(registry: Registry) -> None:
    with registry.write() as session:
        token = Fernet(OTHER).encrypt(b"of another registry").decode()
        session.execute(
            text("UPDATE peer SET preshared_key = :token WHERE public_key = 'p2.1'"), {"token": token}
        )
    before = tokens(registry)
    secrets.use([NEW, OLD])
    with pytest.raises(NotUsable, match="another key than those of") as caught, registry.write() as session:
        rotation.rotate(session)
    assert token not in str(caught.value)
    assert tokens(registry) == before


@pytest.mark.parametrize(
    "data", [{}, [], "peers_sealed", 1, None, {"a": ["b", {"c": None}]}, {"peers_sealed": 3}]
)
def test_data_without_secrets_stays(data: Any) -> None:
    secrets.use([NEW])
    assert rotation.renewed_within(data) is None


def test_data_keeps_its_form() -> None:
    secrets.use([OLD])
    data = {"a": [1, {"x_sealed": seal("x"), "n": None}, "t"], "y_sealed": seal("y"), "b": []}
    secrets.use([NEW, OLD])
    fresh = rotation.renewed_within(data)
    assert [list(fresh), fresh["a"][0], fresh["a"][2], fresh["b"]] == [["a", "y_sealed", "b"], 1, "t", []]
    assert fresh["a"][1]["n"] is None
    assert [Fernet(NEW).decrypt(each) for each in (fresh["a"][1]["x_sealed"], fresh["y_sealed"])] == [
        b"x",
        b"y",
    ]


def everything_else(registry: Registry) -> str:
    """All tables without what is encrypted; operations without what is sealed."""
    hidden = rotation.encrypted_columns()
    kept = {}
    with registry.read() as session:
        for table in Base.metadata.sorted_tables:
            columns = [
                column for column in table.columns if column not in hidden and column.name != "request"
            ]
            rows = session.execute(select(*columns).order_by(*table.primary_key.columns)).all()
            kept[table.name] = [list(map(str, row)) for row in rows]
        kept["requests"] = [
            [json.dumps(one, default=str) for one in ([r["x"][1:], r["y"]] if "x" in r else [r])]
            for r in session.scalars(select(Operation.request).order_by(Operation.id))
        ]
    return json.dumps(kept)
