"""`python -m api_shim serve` and `python -m api_shim keys …`.

Exit codes: 0 done, 1 it could not be done, 2 the command line or a setting is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# From a checkout, the collection is imported as Ansible finds it there; installed, it is where Python looks anyway.
_COLLECTIONS = Path(__file__).resolve().parent.parent / "collections"
if _COLLECTIONS.is_dir() and str(_COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(_COLLECTIONS))

from pydantic import ValidationError  # noqa: E402

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (  # noqa: E402
    RegistryError,
)
from api_shim import key_commands, serving  # noqa: E402
from api_shim.logs import redacted  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api_shim", description="vpnfleet's HTTP interface")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving.add_parser(commands)
    key_commands.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            variable = "VPNFLEET_" + "_".join(str(part) for part in each["loc"]).upper()
            _say(f"{variable}: {each['msg'].removeprefix('Value error, ')}")
        return 2
    except (RegistryError, serving.CannotListen) as error:
        _say(str(error))
        return 1
    return 0


def _say(message: str) -> None:
    print(f"error: {redacted(' '.join(message.split()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
