# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A listening socket that systemd has opened, and keeps open while the agent is started anew (sd_listen_fds(3)).

What comes meanwhile waits in it, so that a new release costs no request.
"""

from __future__ import annotations

import os
import socket
from typing import Optional

_FIRST = 3


def inherited() -> Optional[socket.socket]:
    """The socket; None when the agent was started without one. Once: the environment no longer tells of it after that.

    Raises OSError when what was handed over is no listening socket."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    listener = socket.socket(fileno=_FIRST)
    listener.set_inheritable(False)
    if count != "1" or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, "systemd has handed over something else than one listening socket")
    return listener
