# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_key_key_hash")),
        sa.UniqueConstraint("name", name=op.f("uq_api_key_name")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=254), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("operation_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
    )
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_entry_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_entry_subject"), ["subject"], unique=False)

    op.create_table(
        "license",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("server", sa.String(length=253), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_license")),
    )
    with op.batch_alter_table("license", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_license_email"), ["email"], unique=False)

    op.create_table(
        "node",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("ansible_host", sa.String(length=253), nullable=True),
        sa.Column("ansible_port", sa.Integer(), nullable=True),
        sa.Column("ansible_user", sa.String(length=64), nullable=True),
        sa.Column("ansible_python_interpreter", sa.String(length=255), nullable=True),
        sa.Column("agent_url", sa.String(length=255), nullable=True),
        sa.Column("endpoint", sa.String(length=261), nullable=True),
        sa.Column("wg_interface", sa.String(length=15), nullable=False),
        sa.Column("ip_pool_cidr", sa.String(length=18), nullable=False),
        sa.Column("ip6_pool_cidr", sa.String(length=43), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("max_peers", sa.Integer(), nullable=True),
        sa.Column("country", sa.String(length=64), nullable=True),
        sa.Column("dns_name", sa.String(length=253), nullable=True),
        sa.Column("override_listen_port", sa.Integer(), nullable=True),
        sa.Column("override_dns", sa.String(length=255), nullable=True),
        sa.Column("override_mtu", sa.Integer(), nullable=True),
        sa.Column("override_keepalive", sa.Integer(), nullable=True),
        sa.Column("override_endpoint_allowed_ip", sa.Text(), nullable=True),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("max_peers IS NULL OR max_peers >= 0", name=op.f("ck_node_max_peers")),
        sa.CheckConstraint("weight >= 0", name=op.f("ck_node_weight")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
        sa.UniqueConstraint("name", name=op.f("uq_node_name")),
    )
    with op.batch_alter_table("node", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_node_country"), ["country"], unique=False)
        batch_op.create_index(batch_op.f("ix_node_dns_name"), ["dns_name"], unique=False)

    op.create_table(
        "peer_group",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=260), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer_group")),
        sa.UniqueConstraint("name", name=op.f("uq_peer_group_name")),
    )
    op.create_table(
        "user",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("email", name=op.f("uq_user_email")),
    )
    op.create_table(
        "auth_token",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_auth_token_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auth_token")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_auth_token_token_hash")),
    )
    with op.batch_alter_table("auth_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_auth_token_user_id"), ["user_id"], unique=False)

    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=254), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("arrived", sa.Boolean(), nullable=False),
        sa.Column("listen_port", sa.Integer(), nullable=False),
        sa.Column("public_key", sa.String(length=44), nullable=False),
        sa.Column("private_key", sa.Text(), nullable=False),
        sa.Column("subnet", sa.String(length=18), nullable=False),
        sa.Column("subnet6", sa.String(length=43), nullable=False),
        sa.Column("dns", sa.String(length=255), nullable=True),
        sa.Column("mtu", sa.Integer(), nullable=True),
        sa.Column("keepalive", sa.Integer(), nullable=True),
        sa.Column("endpoint_allowed_ip", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('present', 'disconnected')", name=op.f("ck_instance_state")),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_instance_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint("name", name=op.f("uq_instance_name")),
        sa.UniqueConstraint("node_id", "listen_port", name=op.f("uq_instance_node_id_listen_port")),
        sa.UniqueConstraint("public_key", name=op.f("uq_instance_public_key")),
        sa.UniqueConstraint("subnet", name=op.f("uq_instance_subnet")),
        sa.UniqueConstraint("subnet6", name=op.f("uq_instance_subnet6")),
        sa.UniqueConstraint("uuid", name=op.f("uq_instance_uuid")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_node_id"), ["node_id"], unique=False)

    op.create_table(
        "operation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("instance_name", sa.String(length=254), nullable=True),
        sa.Column("node_id", sa.String(length=36), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "holds",
            sa.String(length=254),
            sa.Computed(
                "CASE WHEN state = 'running' AND kind <> 'drift' THEN coalesce(instance_name, node_id) END",
                persisted=True,
            ),
            nullable=True,
        ),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'succeeded', 'failed', 'canceled')",
            name=op.f("ck_operation_state"),
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.id"], name=op.f("fk_operation_node_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation")),
        sa.UniqueConstraint("holds", name=op.f("uq_operation_holds")),
    )
    with op.batch_alter_table("operation", schema=None) as batch_op:
        batch_op.create_index("ix_operation_instance_name_state", ["instance_name", "state"], unique=False)
        batch_op.create_index(batch_op.f("ix_operation_node_id"), ["node_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_operation_run_id"), ["run_id"], unique=False)
        batch_op.create_index("ix_operation_state", ["state"], unique=False)

    op.create_table(
        "user_acl",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("rights", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_user_acl_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_acl")),
        sa.UniqueConstraint("user_id", name=op.f("uq_user_acl_user_id")),
    )
    op.create_table(
        "user_session",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_user_session_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_session")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_user_session_key_hash")),
    )
    with op.batch_alter_table("user_session", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_user_session_user_id"), ["user_id"], unique=False)

    op.create_table(
        "peer",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("public_key", sa.String(length=44), nullable=False),
        sa.Column("private_key", sa.Text(), nullable=True),
        sa.Column("preshared_key", sa.Text(), nullable=True),
        sa.Column("persistent_keepalive", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_peer_instance_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer")),
        sa.UniqueConstraint("public_key", name=op.f("uq_peer_public_key")),
    )
    with op.batch_alter_table("peer", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_peer_instance_id"), ["instance_id"], unique=False)

    op.create_table(
        "peer_group_instance",
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["peer_group.id"], name=op.f("fk_peer_group_instance_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_peer_group_instance_instance_id")
        ),
        sa.PrimaryKeyConstraint("group_id", "instance_id", name=op.f("pk_peer_group_instance")),
    )
    with op.batch_alter_table("peer_group_instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_peer_group_instance_instance_id"), ["instance_id"], unique=False)

    op.create_table(
        "teardown",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("interface", sa.String(length=15), nullable=False),
        sa.Column("listen_port", sa.Integer(), nullable=False),
        sa.Column("subnet", sa.String(length=18), nullable=False),
        sa.Column("subnet6", sa.String(length=43), nullable=False),
        sa.Column("public_key", sa.String(length=44), nullable=True),
        sa.Column("instance_name", sa.String(length=254), nullable=False),
        sa.Column("operation_id", sa.String(length=36), nullable=True),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_teardown_node_id")),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name=op.f("fk_teardown_operation_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teardown")),
        sa.UniqueConstraint("node_id", "interface", name=op.f("uq_teardown_node_id_interface")),
        sa.UniqueConstraint("node_id", "listen_port", name=op.f("uq_teardown_node_id_listen_port")),
    )
    with op.batch_alter_table("teardown", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_teardown_instance_name"), ["instance_name"], unique=False)
        batch_op.create_index(batch_op.f("ix_teardown_operation_id"), ["operation_id"], unique=False)

    op.create_table(
        "peer_allowed_ip",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("peer_id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("network", sa.String(length=43), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_peer_allowed_ip_instance_id")
        ),
        sa.ForeignKeyConstraint(["peer_id"], ["peer.id"], name=op.f("fk_peer_allowed_ip_peer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer_allowed_ip")),
        sa.UniqueConstraint("instance_id", "network", name=op.f("uq_peer_allowed_ip_instance_id_network")),
    )
    with op.batch_alter_table("peer_allowed_ip", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_peer_allowed_ip_peer_id"), ["peer_id"], unique=False)

    op.create_table(
        "peer_group_peer",
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("peer_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["peer_group.id"], name=op.f("fk_peer_group_peer_group_id")),
        sa.ForeignKeyConstraint(["peer_id"], ["peer.id"], name=op.f("fk_peer_group_peer_peer_id")),
        sa.PrimaryKeyConstraint("group_id", "peer_id", name=op.f("pk_peer_group_peer")),
    )
    with op.batch_alter_table("peer_group_peer", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_peer_group_peer_peer_id"), ["peer_id"], unique=False)

    op.create_table(
        "peer_invite",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("peer_id", sa.String(length=36), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["peer_id"], ["peer.id"], name=op.f("fk_peer_invite_peer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer_invite")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_peer_invite_token_hash")),
    )
    with op.batch_alter_table("peer_invite", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_peer_invite_peer_id"), ["peer_id"], unique=False)

    op.create_table(
        "peer_status",
        sa.Column("peer_id", sa.String(length=36), nullable=False),
        sa.Column("latest_handshake", sa.DateTime(timezone=True), nullable=True),
        sa.Column("endpoint", sa.String(length=64), nullable=True),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["peer_id"], ["peer.id"], name=op.f("fk_peer_status_peer_id")),
        sa.PrimaryKeyConstraint("peer_id", name=op.f("pk_peer_status")),
    )
