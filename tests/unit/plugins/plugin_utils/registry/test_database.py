"""Opening the registry: what is made, who may read it, which keys fit, and what is said when it is not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import QueuePool

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import database, schema, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    is_there,
    look_into,
    open_registry,
    parse_url,
    schema_revision,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NoSchema, NotUsable
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node

PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (database.VARIABLE, secrets.VARIABLE, "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    umask = os.umask(0o022)
    yield
    os.umask(umask)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    return set_keys(monkeypatch, Fernet.generate_key().decode())


def set_keys(monkeypatch: pytest.MonkeyPatch, *keys: str) -> str:
    monkeypatch.setenv(secrets.VARIABLE, ",".join(keys))
    return keys[0]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def opened(url: str) -> database.Registry:
    """The registry at an empty database, with its schema."""
    registry = open_registry(url, schema_required=False)
    registry.upgrade()
    return registry


def an_instance(registry: database.Registry) -> None:
    with registry.write() as session:
        node = Node(name="n1", ip_pool_cidr="10.1.0.0/16", ip6_pool_cidr="fd00:1::/48")
        session.add(node)
        session.flush()
        session.add(
            Instance(
                name="alice@example.com",
                node_id=node.id,
                listen_port=51820,
                public_key="public",
                private_key="private",
                subnet="10.1.0.0/24",
                subnet6="fd00:1::/64",
            )
        )


# -- what is made


def test_the_first_use_makes_everything_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    with open_registry().write() as session:
        session.add(Node(name="n1", ip_pool_cidr="10.1.0.0/16", ip6_pool_cidr="fd00:1::/48"))
        session.flush()
        folder = tmp_path / ".local/share/vpnfleet"
        assert mode(folder) == 0o700
        assert {path.name: mode(path) for path in folder.iterdir()} == {
            "registry.db": 0o600,
            "registry.db-wal": 0o600,
            "registry.db-shm": 0o600,
            "registry.key": 0o600,
        }

    with open_registry().read() as session:
        assert session.scalars(select(Node.name)).all() == ["n1"]


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    open_registry()
    assert (tmp_path / "data/vpnfleet/registry.db").exists()
    monkeypatch.setenv(database.VARIABLE, f"sqlite:///{tmp_path}/elsewhere/fleet.db")
    open_registry()
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["fleet.db", "fleet.key"]
    open_registry(f"sqlite:///{tmp_path}/third.db")
    assert (tmp_path / "third.db").exists()


def test_nothing_is_made_where_it_was_to_be_there(sqlite_url: str, tmp_path: Path) -> None:
    """Neither by a step in the middle of a run, nor by a connection after the file was taken away."""
    with pytest.raises(
        NoSchema, match=r"there is no registry at .*registry\.sqlite3 yet: playbooks/nodes\.yml"
    ):
        open_registry(sqlite_url, make=False)
    assert list(tmp_path.iterdir()) == []
    registry = open_registry(sqlite_url)
    for path in tmp_path.glob("registry.sqlite3*"):
        path.unlink()
    for transaction in (registry.read, registry.write):
        with pytest.raises(NotUsable, match="unable to open database file"), transaction():
            pass
    assert list(tmp_path.glob("*.sqlite3*")) == []


def test_with_a_key_in_the_environment_there_is_no_key_file(
    sqlite_url: str, tmp_path: Path, key: str
) -> None:
    an_instance(opened(sqlite_url))
    assert list(tmp_path.glob("*.key")) == []
    assert secrets.keys_from_environment() == [key]


def test_readers_and_the_writer_do_not_wait_for_each_other(sqlite_url: str) -> None:
    registry = open_registry(sqlite_url)
    with registry.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    with registry.read() as reader:
        assert reader.scalars(select(Node.name)).all() == []
        with registry.write() as writer:
            writer.add(Node(name="n1", ip_pool_cidr="10.1.0.0/16", ip6_pool_cidr="fd00:1::/48"))
        assert reader.scalars(select(Node.name)).all() == []  # one state of the registry, to the end


def test_foreign_keys_hold(registry_url: str, key: str) -> None:  # noqa: ARG001
    registry = open_registry(registry_url)
    an_instance(registry)
    with pytest.raises(IntegrityError), registry.write() as session:
        session.execute(text("DELETE FROM node"))


def test_what_is_not_to_be_kept_is_rolled_back(registry_url: str, key: str) -> None:  # noqa: ARG001
    registry = open_registry(registry_url)
    with registry.write(keep=False) as session:
        session.add(Node(name="n1", ip_pool_cidr="10.1.0.0/16", ip6_pool_cidr="fd00:1::/48"))
    with registry.read() as session:
        assert session.scalars(select(Node.name)).all() == []


# -- keys


def test_secrets_are_encrypted_at_rest(registry_url: str, key: str) -> None:
    registry = open_registry(registry_url)
    an_instance(registry)
    with registry.read() as session:
        stored = session.execute(text("SELECT private_key FROM instance")).scalar_one()
        assert "private" not in stored
        assert Fernet(key).decrypt(stored) == b"private"
        assert session.scalars(select(Instance.private_key)).one() == "private"


def test_the_wrong_key_is_noticed_before_anything_is_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = set_keys(monkeypatch, Fernet.generate_key().decode())
    an_instance(opened(database_url))
    other = set_keys(monkeypatch, Fernet.generate_key().decode())
    with pytest.raises(NotUsable, match=f"another key than those of {secrets.VARIABLE}") as caught:
        open_registry(database_url)
    assert right not in str(caught.value)
    assert other not in str(caught.value)
    set_keys(monkeypatch, other, right)
    open_registry(database_url)


@pytest.mark.parametrize("keys", ["short", "short,", "k" * 44])
def test_what_is_no_key_is_refused_and_not_repeated(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    set_keys(monkeypatch, keys)
    with pytest.raises(
        NotUsable, match=f"{secrets.VARIABLE} holds something else than Fernet keys"
    ) as caught:
        open_registry(sqlite_url)
    assert keys.strip(",") not in str(caught.value)


def test_a_database_on_a_server_wants_a_key() -> None:
    """And before anything else: nothing listens there."""
    with pytest.raises(NotUsable, match=f"{secrets.VARIABLE} is not set"):
        open_registry("postgresql://fleet@127.0.0.1:1/fleet")


def test_a_lost_key_file_is_no_reason_for_a_new_key(sqlite_url: str, tmp_path: Path) -> None:
    registry = open_registry(sqlite_url)
    registry.close()
    (key_file,) = tmp_path.glob("*.key")
    kept = key_file.read_text()
    key_file.unlink()
    with pytest.raises(NotUsable, match="put it back from your backup"):
        open_registry(sqlite_url)
    assert not key_file.exists()
    key_file.write_text(f"\n {kept}\n")
    open_registry(sqlite_url)


def test_the_key_file_may_hold_several(sqlite_url: str, tmp_path: Path) -> None:
    an_instance(open_registry(sqlite_url))
    (key_file,) = tmp_path.glob("*.key")
    first = Fernet.generate_key().decode()
    key_file.write_text(f"{first}\n{key_file.read_text()}")
    with open_registry(sqlite_url).read() as session:
        assert session.scalars(select(Instance.private_key)).one() == "private"
    assert Fernet(first).decrypt(secrets.cipher().encrypt(b"new")) == b"new"


# -- looking without making


def test_looking_needs_no_key_and_makes_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert schema_revision(database_url) is None
    with pytest.raises(NoSchema, match=r"playbooks/(nodes|registry)\.yml"):
        look_into(database_url)
    assert list(tmp_path.iterdir()) == []
    set_keys(monkeypatch, Fernet.generate_key().decode())
    an_instance(opened(database_url))
    monkeypatch.delenv(secrets.VARIABLE)
    assert schema_revision(database_url) == schema.HEAD
    with look_into(database_url).read() as session:
        assert session.scalars(select(Node.name)).all() == ["n1"]


def test_whether_there_is_one_is_asked_of_a_file_alone(sqlite_url: str, key: str) -> None:  # noqa: ARG001
    assert not is_there(sqlite_url)
    opened(sqlite_url).close()
    assert is_there(sqlite_url)
    assert is_there("postgresql://fleet@127.0.0.1:1/fleet")


def test_an_empty_file_has_nothing_to_look_at(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite3").touch()
    with pytest.raises(NoSchema, match="no schema yet"):
        look_into(sqlite_url)


# -- what is said


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://fleet:{PASSWORD}@127.0.0.1:1/fleet",
        f"postgresql://127.0.0.1:1/fleet?user=fleet&password={PASSWORD}",
    ],
)
def test_an_unreachable_database_is_told_without_the_password(url: str, key: str) -> None:  # noqa: ARG001
    for use in (open_registry, look_into, schema_revision):
        with pytest.raises(
            NotUsable, match=r"the registry \(postgresql.*127.0.0.1.*\) cannot be used: "
        ) as caught:
            use(url)
        assert PASSWORD not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        PASSWORD,
        f"postgresql://fleet:x@db:{PASSWORD}/fleet",
        f"mysql://fleet:{PASSWORD}@db/fleet",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_useless_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(NotUsable, match=f"^{database.VARIABLE}") as caught:
        parse_url(url)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_folder_for_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotUsable, match=r"the registry's file .*file.*: "):
        open_registry(f"sqlite:///{tmp_path}/file/registry.db")


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("something else " * 100)
    (tmp_path / "registry.key").write_bytes(Fernet.generate_key())
    with pytest.raises(NotUsable, match="cannot be used: file is not a database"):
        open_registry(f"sqlite:///{tmp_path}/registry.db")


def test_pooled_connections_are_used_again_and_replaced_when_they_are_lost(
    postgres_url: str,
    key: str,  # noqa: ARG001
) -> None:
    opened(postgres_url).close()
    registry = database.open_registry(postgres_url, pooled=True)
    other = database.open_registry(postgres_url)

    def session_id(session: Any) -> int:
        return int(session.scalar(text("SELECT pg_backend_pid()")))

    with registry.read() as session:
        first = session_id(session)
    # What only reads leaves nothing of that behind.
    an_instance(registry)
    with registry.read() as session:
        assert session_id(session) == first
    with other.read() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
    with registry.read() as session:
        assert session_id(session) != first
    registry.close()
    other.close()


def test_no_pooled_connection_outlives_its_file(sqlite_url: str, key: str) -> None:  # noqa: ARG001
    opened(sqlite_url).close()
    registry = database.open_registry(sqlite_url, pooled=True)
    path = Path(parse_url(sqlite_url).database or "")
    empty = path.read_bytes()

    def names() -> list[str]:
        with registry.read() as session:
            return list(session.scalars(select(Instance.name)))

    an_instance(registry)
    assert names() == ["alice@example.com"]
    path.unlink()
    with pytest.raises(NotUsable, match="unable to open"):
        an_instance(registry)
    assert not path.exists()
    for log in path.parent.glob(f"{path.name}-*"):
        log.unlink()  # they belong to the file that was taken away
    path.write_bytes(empty)
    assert names() == []
    an_instance(registry)
    assert names() == ["alice@example.com"]
    registry.close()


def test_a_pooled_connection_is_used_again(sqlite_url: str, key: str) -> None:  # noqa: ARG001
    opened(sqlite_url).close()
    registry = database.open_registry(sqlite_url, pooled=True)
    used = set()
    for _ in range(3):
        with registry.read() as session:
            used.add(id(session.connection().connection.dbapi_connection))
    assert len(used) == 1
    registry.close()


def test_a_pool_whose_connections_are_all_taken_is_told(sqlite_url: str, key: str) -> None:  # noqa: ARG001
    opened(sqlite_url).close()
    pool = create_engine(sqlite_url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01)
    registry = database.Registry(pool)
    taken = pytest.raises(NotUsable, match="all connections of the pool are taken")
    with registry.read(), taken, registry.read():
        pass
    registry.close()
