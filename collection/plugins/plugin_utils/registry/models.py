# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables. docs/registry.md has them as a picture.

Times are UTC. What is unique is so by constraint; what constraints cannot say (networks that overlap, a port that a
teardown still holds) is checked by `allocation` and `networks`, under the lock that every writing transaction takes.
"""

# No `from __future__ import annotations`: SQLAlchemy would evaluate each annotation again, 35 ms in every step.
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.secrets import Encrypted

#: A query takes so many values at the most (SQLite's limit is 32,766).
CHUNK = 5000


class Utc(TypeDecorator[datetime]):
    """A point in time; aware on both sides, also on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC on the way in."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """UTC on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())


class Base(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: Utc, dict[str, Any]: JSON, list[str]: JSON}


Id = Mapped[str]


def _id() -> Any:
    return mapped_column(String(36), primary_key=True, default=new_id)


class Node(Base):
    """A server that runs WireGuard."""

    __tablename__ = "node"
    __table_args__ = (
        CheckConstraint("weight >= 0", name="weight"),
        CheckConstraint("max_peers IS NULL OR max_peers >= 0", name="max_peers"),
    )

    id: Id = _id()
    name: Mapped[str] = mapped_column(String(253), unique=True)  # as in the inventory
    # How Ansible reaches it; what is None is left to the inventory's variables.
    ansible_host: Mapped[str | None] = mapped_column(String(253))
    ansible_port: Mapped[int | None]
    ansible_user: Mapped[str | None] = mapped_column(String(64))
    ansible_python_interpreter: Mapped[str | None] = mapped_column(String(255))
    agent_url: Mapped[str | None] = mapped_column(String(255))
    # What requests to its agent are signed with; the one that is to take its place; what it shows in TLS, in PEM.
    agent_secret: Mapped[str | None] = mapped_column(Encrypted, deferred=True)
    agent_secret_next: Mapped[str | None] = mapped_column(Encrypted, deferred=True)
    agent_certificate: Mapped[str | None] = mapped_column(Text, deferred=True)
    endpoint: Mapped[str | None] = mapped_column(String(261))  # host or host:port, as devices reach it
    wg_interface: Mapped[str] = mapped_column(String(15), default="wg0")
    ip_pool_cidr: Mapped[str] = mapped_column(String(18))  # the instances' IPv4 subnets come out of it
    ip6_pool_cidr: Mapped[str] = mapped_column(String(43))  # and their IPv6 subnets, /64 each
    enabled: Mapped[bool] = mapped_column(default=True)  # takes new instances
    weight: Mapped[int] = mapped_column(
        default=100
    )  # its share of new instances; 0: only when asked for by name
    max_peers: Mapped[int | None]  # None: no limit
    country: Mapped[str | None] = mapped_column(String(64), index=True)
    dns_name: Mapped[str | None] = mapped_column(String(253), index=True)
    override_listen_port: Mapped[int | None]
    override_dns: Mapped[str | None] = mapped_column(String(255))
    override_mtu: Mapped[int | None]
    override_keepalive: Mapped[int | None]
    override_endpoint_allowed_ip: Mapped[str | None] = mapped_column(Text)
    last_seen: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Instance(Base):
    """One WireGuard interface, `wg{id}`, of one customer, on one node."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("node_id", "listen_port"),
        CheckConstraint("state IN ('present', 'disconnected')", name="state"),
        # Ids become names of interfaces, and one that waits for its teardown must not be taken for a new one.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True, default=new_id)
    name: Mapped[str] = mapped_column(String(254), unique=True)  # the customer's e-mail
    node_id: Mapped[str] = mapped_column(ForeignKey("node.id"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="present")
    applied: Mapped[bool] = mapped_column(default=False)  # the node has confirmed what is said here
    # It has been up on this node: what bears its name there is its own.
    arrived: Mapped[bool] = mapped_column(default=False)
    listen_port: Mapped[int]
    public_key: Mapped[str] = mapped_column(String(44), unique=True)
    private_key: Mapped[str] = mapped_column(Encrypted, deferred=True)
    subnet: Mapped[str] = mapped_column(String(18), unique=True)
    subnet6: Mapped[str] = mapped_column(String(43), unique=True)
    # None: as the node says, else the default.
    dns: Mapped[str | None] = mapped_column(String(255))
    mtu: Mapped[int | None]
    keepalive: Mapped[int | None]
    endpoint_allowed_ip: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    node: Mapped[Node] = relationship()

    @property
    def interface(self) -> str:
        """What it is called on its node."""
        return f"wg{self.id}"


class Peer(Base):
    """One device in an instance."""

    __tablename__ = "peer"

    id: Id = _id()
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    name: Mapped[str] = mapped_column(String(255), default="")
    public_key: Mapped[str] = mapped_column(String(44), unique=True)
    private_key: Mapped[str | None] = mapped_column(Encrypted, deferred=True)  # when it was made here
    preshared_key: Mapped[str | None] = mapped_column(Encrypted)
    persistent_keepalive: Mapped[int] = mapped_column(default=0)  # seconds, of the node towards the device
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class PeerAllowedIp(Base):
    """One network of a peer: its own addresses, and what lies behind it."""

    __tablename__ = "peer_allowed_ip"
    __table_args__ = (UniqueConstraint("instance_id", "network"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    peer_id: Mapped[str] = mapped_column(ForeignKey("peer.id"), index=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"))
    network: Mapped[str] = mapped_column(String(43))


class PeerStatus(Base):
    """What was last seen of a peer on its node."""

    __tablename__ = "peer_status"

    peer_id: Mapped[str] = mapped_column(ForeignKey("peer.id"), primary_key=True)
    latest_handshake: Mapped[datetime | None]
    endpoint: Mapped[str | None] = mapped_column(String(64))
    received_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sent_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    seen_at: Mapped[datetime] = mapped_column(default=now)


class PeerInvite(Base):
    """A one-time right to fetch a peer's configuration; only the token's hash is kept."""

    __tablename__ = "peer_invite"

    id: Id = _id()
    peer_id: Mapped[str] = mapped_column(ForeignKey("peer.id"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=now)


class PeerGroup(Base):
    """A group of peers and instances; a customer's is called `{instance}_group`."""

    __tablename__ = "peer_group"

    id: Id = _id()
    name: Mapped[str] = mapped_column(String(260), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class PeerGroupPeer(Base):
    """A peer in a group."""

    __tablename__ = "peer_group_peer"

    group_id: Mapped[str] = mapped_column(ForeignKey("peer_group.id"), primary_key=True)
    peer_id: Mapped[str] = mapped_column(ForeignKey("peer.id"), primary_key=True, index=True)


class PeerGroupInstance(Base):
    """An instance in a group."""

    __tablename__ = "peer_group_instance"

    group_id: Mapped[str] = mapped_column(ForeignKey("peer_group.id"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), primary_key=True, index=True)


class License(Base):
    """A customer's right to service. `server` is a node's dns_name or country."""

    __tablename__ = "license"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    server: Mapped[str | None] = mapped_column(String(253))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class User(Base):
    """A customer's account."""

    __tablename__ = "user"

    id: Id = _id()
    email: Mapped[str] = mapped_column(String(254), unique=True)
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class UserAcl(Base):
    """What an account may do."""

    __tablename__ = "user_acl"

    id: Id = _id()
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"), unique=True)
    rights: Mapped[list[str]] = mapped_column(default=list)


class AuthToken(Base):
    """A token of an account; only its hash is kept."""

    __tablename__ = "auth_token"

    id: Id = _id()
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class UserSession(Base):
    """A session of an account; only its key's hash is kept."""

    __tablename__ = "user_session"

    id: Id = _id()
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"), index=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Operation(Base):
    """One requested change, or look, with its state and result.

    pending: recorded and to be done, or to be tried again; running: a run is at work on it, `owner` says which;
    succeeded, failed and canceled are final.
    """

    __tablename__ = "operation"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'running', 'succeeded', 'failed', 'canceled')", name="state"),
        Index("ix_operation_instance_name_state", "instance_name", "state"),
        Index("ix_operation_state", "state"),
    )

    id: Id = _id()
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    instance_name: Mapped[str | None] = mapped_column(String(254))
    node_id: Mapped[str | None] = mapped_column(ForeignKey("node.id", ondelete="SET NULL"), index=True)
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what was asked; no secrets
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what its run has done so far
    result: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True)
    )  # as set_stats publishes it
    error: Mapped[str | None] = mapped_column(Text)
    # Of two runs that take up the same instance, or reconcile the same node, in the same moment, one gets it.
    holds: Mapped[str | None] = mapped_column(
        String(254),
        Computed(
            "CASE WHEN state = 'running' AND kind <> 'drift' THEN coalesce(instance_name, node_id) END",
            persisted=True,
        ),
        unique=True,
    )
    run_id: Mapped[str | None] = mapped_column(String(36), index=True)
    owner: Mapped[str | None] = mapped_column(String(255))  # the process that runs it
    lease_until: Mapped[datetime | None]  # until when, if nobody can ask that process
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]  # when it is tried again
    requested_by: Mapped[str] = mapped_column(String(255), default="")
    cancel_requested_by: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OperationEvent(Base):
    """What happened to an operation, for whoever follows it."""

    __tablename__ = "operation_event"
    __table_args__ = (
        {"sqlite_autoincrement": True},
    )  # a follower resumes behind the last one that it has seen

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_id: Mapped[str] = mapped_column(ForeignKey("operation.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    event: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class NodeCheck(Base):
    """One finished look at a node, or one reconcile of it. Of each node, the last ones are kept: see `checks`.

    ok: it was read; unreachable: it could not be reached; failed: it was reached, and could not be read, or how it went
    is not known. The numbers say what differed, after a reconcile what is left; they are None when that is not known.
    """

    __tablename__ = "node_check"
    __table_args__ = (
        CheckConstraint("state IN ('ok', 'unreachable', 'failed')", name="state"),
        Index(
            "ix_node_check_node_id_id", "node_id", "id"
        ),  # the last one of a node, and those before the last N
    )

    id: Mapped[int] = mapped_column(primary_key=True)  # grows: the order in which they ended
    node_id: Mapped[str] = mapped_column(ForeignKey("node.id", ondelete="CASCADE"))
    operation_id: Mapped[str | None] = mapped_column(String(36))  # it may be forgotten before this row is
    kind: Mapped[str] = mapped_column(String(16))  # drift or reconcile
    at: Mapped[datetime] = mapped_column(default=now)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    has_drift: Mapped[bool | None]
    missing_count: Mapped[int | None]
    mismatched_count: Mapped[int | None]
    unknown_count: Mapped[int | None]
    interface_count: Mapped[int | None]
    milliseconds: Mapped[int | None]  # from when its run took it up


class Teardown(Base):
    """What is still to be taken down on a node: a removed instance, the source of a transfer, the target of one that
    has not come to its end. Its port and subnets are not free before that."""

    __tablename__ = "teardown"
    __table_args__ = (
        UniqueConstraint("node_id", "interface"),
        UniqueConstraint("node_id", "listen_port"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("node.id"))
    interface: Mapped[str] = mapped_column(String(15))
    listen_port: Mapped[int]
    subnet: Mapped[str] = mapped_column(String(18))
    subnet6: Mapped[str] = mapped_column(String(43))
    # Of one that was never confirmed there: what has another key is not its own, and left alone.
    public_key: Mapped[str | None] = mapped_column(String(44))
    instance_name: Mapped[str] = mapped_column(String(254), index=True)
    operation_id: Mapped[str | None] = mapped_column(
        ForeignKey("operation.id", ondelete="SET NULL"), index=True
    )
    reason: Mapped[str] = mapped_column(
        String(16)
    )  # removed, transferred (the source), reserved (the target)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)


class AuditEntry(Base):
    """Who did what, when, and how it ended. Never changed and never removed."""

    __tablename__ = "audit_entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    actor: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(254), index=True)
    result: Mapped[str] = mapped_column(String(16))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    operation_id: Mapped[str | None] = mapped_column(String(36))


class IdempotencyKey(Base):
    """A caller's name for one call: the same again is answered as it was."""

    __tablename__ = "idempotency_key"

    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))  # of method, path and body
    operation_id: Mapped[str | None] = mapped_column(
        ForeignKey("operation.id", ondelete="SET NULL"), index=True
    )
    status: Mapped[int | None]  # None: not answered yet
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class ApiKey(Base):
    """A key of the HTTP interface; only its hash is kept."""

    __tablename__ = "api_key"

    id: Id = _id()
    name: Mapped[str] = mapped_column(String(64), unique=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
