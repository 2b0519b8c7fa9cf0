"""Customers who all come in the same moment, each in a process of its own: python -m ... URL CUSTOMERS PEERS.

The processes are forks of one that has done it before, for nobody: so the machine is busy with the registry and not
with imports. Ends with 1 when one of them did not end with 0.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

from sqlalchemy import insert

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    find_place,
    free_addresses,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Peer,
    PeerAllowedIp,
    new_id,
)
from tests.unit.plugins.plugin_utils.registry.rows import any_key


def provision(url: str, number: int, peers: int, start: Barrier | None) -> None:
    """All that a new customer needs, in one transaction that begins when everybody is ready; without `start`, it is
    rolled back."""
    registry = open_registry(url)
    if start:
        start.wait(120)
    with registry.write(keep=start is not None) as session:
        place = find_place(session, peers)
        instance = Instance(
            name=f"customer{number}@example.com",
            node=place.node,
            listen_port=place.listen_port,
            subnet=place.subnet,
            subnet6=place.subnet6,
            public_key=any_key(),
            private_key=any_key(),
        )
        session.add(instance)
        session.flush()
        for addresses in free_addresses(session, instance, peers):
            peer = {"id": new_id(), "instance_id": instance.id, "public_key": any_key()}
            session.execute(insert(Peer), [peer])
            session.execute(
                insert(PeerAllowedIp),
                [{"peer_id": peer["id"], "instance_id": instance.id, "network": text} for text in addresses],
            )
    registry.close()


def main(url: str, customers: int, peers: int) -> int:
    """Start them, wait for them."""
    provision(url, 0, peers, None)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(customers)
    processes = [
        context.Process(target=provision, args=(url, number, peers, start)) for number in range(customers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
