# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alembic's entry: runs the migrations on the connection that schema.py hands over."""

from __future__ import annotations

from alembic import context

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Base

# A plain import, such as ansible-test's, does nothing: only while Alembic runs this file has it a context.
if hasattr(context, "config"):
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Base.metadata,
        # SQLite cannot alter a column: Alembic copies the table instead.
        render_as_batch=True,
        transaction_per_migration=False,
    )
    context.run_migrations()
