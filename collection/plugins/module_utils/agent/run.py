# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.run``: run the agent on a node."""

from __future__ import annotations

import argparse
import os
from typing import List, Optional, Tuple

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.supervisor import (
    CannotStart,
    Settings,
    Supervisor,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.version import VERSION


def address(text: str) -> Tuple[str, int]:
    """ADDRESS:PORT as it is given to --listen; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError("is not ADDRESS:PORT")
    return host, int(port)


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="agent", description="Serve signed requests for this node's WireGuard."
    )
    options.add_argument("--listen", required=True, type=address, metavar="ADDRESS:PORT")
    options.add_argument(
        "--secrets", required=True, metavar="FILE", help="one secret a line, the newest first; mode 0600"
    )
    options.add_argument(
        "--state-dir", required=True, metavar="DIR", help="where accepted signatures are remembered"
    )
    options.add_argument(
        "--certificate", metavar="FILE", help="in PEM form, with its chain; none: plain HTTP"
    )
    options.add_argument("--key", metavar="FILE", help="of the certificate, in PEM form")
    options.add_argument(
        "--user",
        default="vpnfleet-agent",
        help="who the process that faces the network becomes (default: %(default)s)",
    )
    options.add_argument("--version", action="version", version=VERSION)
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the agent; returns its exit code."""
    options = parser()
    given = options.parse_args(arguments)
    if (given.certificate is None) != (given.key is None):
        options.error("--certificate and --key go together")
    os.umask(0o077)
    host, port = given.listen
    settings = Settings(host, port, given.secrets, given.state_dir, given.user, given.certificate, given.key)
    try:
        return Supervisor(settings).run()
    except CannotStart as error:
        tell(f"the agent cannot start: {error}")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
