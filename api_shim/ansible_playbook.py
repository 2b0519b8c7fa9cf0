"""What ansible-runner starts in the place of `ansible-playbook`: has the playbook server play it, on these streams.

    python -IS ansible_playbook.py SOCKET ARGUMENTS...

Imports next to nothing, as it is started for every run.
"""

import fcntl
import json
import os
import socket
import sys


def main() -> int:
    """Hand over, and wait for the exit code."""
    message = {
        "what": "playbook",
        "arguments": sys.argv[2:],
        "directory": os.getcwd(),  # noqa: PTH109 - pathlib takes long to import
        "environment": dict(os.environ),
    }
    # Handed over, it stays locked until nothing is left of the playbook, also when this process is killed.
    held = os.open(os.environ["VPNFLEET_RUN_LOCK"], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    data = json.dumps(message).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(sys.argv[1])
        head = b"%d\n" % len(data)
        socket.send_fds(connection, [head], [0, 1, 2, held])
        connection.sendall(data)
        answer = b""
        while more := connection.recv(64):
            answer += more
    return int(answer) if answer else 1


if __name__ == "__main__":
    sys.exit(main())
