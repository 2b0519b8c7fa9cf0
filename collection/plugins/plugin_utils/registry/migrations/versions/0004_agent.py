# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to speak with a node's agent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns to nodes. What is there stays as it is."""
    for name in ("agent_secret", "agent_secret_next", "agent_certificate"):
        op.add_column("node", sa.Column(name, sa.Text(), nullable=True))
