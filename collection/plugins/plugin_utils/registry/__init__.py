# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry: the database of what the fleet should be. For the controller only.

One subject per file: `models` are the tables, `database` opens them, `schema` makes and upgrades them; `operations`
records what is asked, and one file each says what an operation does.
"""
