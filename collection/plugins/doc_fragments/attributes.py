# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules promise, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes shared by the modules that change a node."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - wireguard-tools and iproute2 on the node
attributes:
  check_mode:
    description: Can run in C(check_mode) and say what would change without changing it.
    support: full
  diff_mode:
    description: Shows what changes (or would change), with fingerprints in the place of secrets.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: Target platforms.
    support: full
    platforms: linux
"""

    INFO = r"""
options: {}
requirements:
  - wireguard-tools and iproute2 on the node
attributes:
  check_mode:
    description: Runs in C(check_mode) as it does without, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show, since nothing changes.
    support: N/A
  idempotent:
    description: It changes nothing.
    support: full
  platform:
    description: Target platforms.
    support: full
    platforms: linux
"""

    # For what runs on the controller, with the registry.
    REGISTRY = r"""
options: {}
requirements:
  - SQLAlchemy 2, Alembic, cryptography and netaddr on the controller (C(pip install vpnfleet))
  - psycopg 3, where the registry is on PostgreSQL
notes:
  - E(VPNFLEET_DATABASE_URL) says where the registry is, E(VPNFLEET_ENCRYPTION_KEY) with what its secrets are encrypted.
attributes:
  check_mode:
    description: Can run in C(check_mode); then neither a node nor the registry changes.
    support: full
  diff_mode:
    description: Shows what changes (or would change), with fingerprints in the place of secrets.
    support: full
  idempotent:
    description: A second run finds the work done, and says so.
    support: full
  platform:
    description: Target platforms.
    support: full
    platforms: linux
"""

    # Options that an action plugin sets.
    PACKED = r"""
options:
  _packed:
    description:
      - The long lists of the other parameters, compressed. The action plugin sets it on the way to the node; it is
        not for playbooks.
    type: str
"""
