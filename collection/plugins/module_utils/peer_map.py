# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers by public key that know in which keys they differ from others.

Of ten thousand peers, mostly one changes, and to look at all of them again in each step of a run takes longer than the
change itself. So a map that was made out of another one by a few changes remembers which, and what was once worked out
of the other one is brought up to date by these alone. It is all about speed: a map compares as the dictionary that it
is, and nobody writes into one once it is made.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, FrozenSet, Iterable, List, Optional, Tuple, TypeVar

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer

# So many keys may differ; above, looking at all is no slower.
MOST_CHANGED = 1000

# What a peer was, and is; None where there was or is none.
Change = Tuple[Optional[Peer], Optional[Peer]]
Value = TypeVar("Value")


class PeerMap(Dict[str, Peer]):
    """Peers by public key. `root` is the map that this one differs from in the keys `changed` at the most; itself for
    one that was made from nothing."""

    def __init__(self, peers: Dict[str, Peer], root: Optional[PeerMap] = None) -> None:
        super().__init__(peers)
        self._root = root
        self.changed: FrozenSet[str] = frozenset()
        # For roots: another root, and the keys in which the two may not be settled.
        self.agreement: Tuple[Optional[PeerMap], FrozenSet[str]] = (None, frozenset())
        self.worked_out: Dict[Any, Any] = {}

    @property
    def root(self) -> PeerMap:
        """See above."""
        return self if self._root is None else self._root


def derived(base: PeerMap, put: Collection[Peer], remove: Collection[str]) -> PeerMap:
    """`base` with the peers `put` and without the keys `remove`; itself when that is nothing."""
    if not put and not remove:
        return base
    keys = {peer.public_key for peer in put}.union(remove)
    changed = base.changed.union(keys)
    made = PeerMap(base, base.root if len(changed) <= MOST_CHANGED else None)
    if len(changed) <= MOST_CHANGED:
        made.changed = changed
    for key in remove:
        made.pop(key, None)
    for peer in put:
        made[peer.public_key] = peer
    return made


def unsettled(one: Dict[str, Peer], other: Dict[str, Peer]) -> Optional[FrozenSet[str]]:
    """The keys that are to be looked at to know how two maps differ, after `settle` for them or for what they were made
    from; None: all."""
    if not isinstance(one, PeerMap) or not isinstance(other, PeerMap):
        return None
    partner, exceptions = one.root.agreement
    if partner is not other.root:
        return None
    return exceptions.union(one.changed, other.changed)


def settle(one: Dict[str, Peer], other: Dict[str, Peer], exceptions: Iterable[str]) -> None:
    """Take note that two maps were looked at, and that all keys but `exceptions` are settled between them."""
    if isinstance(one, PeerMap) and isinstance(other, PeerMap):
        keys = frozenset(exceptions).union(one.changed, other.changed)
        one.root.agreement = (other.root, keys) if len(keys) <= MOST_CHANGED else (None, frozenset())


def worked_out(
    peers: Dict[str, Peer],
    what: Any,
    whole: Callable[[Dict[str, Peer]], Value],
    update: Callable[[Value, List[Change]], Value],
) -> Value:
    """What `whole` makes of `peers`. For one that differs from its root in a few keys, `update` makes it out of what
    was made of the root; it must not change that. `what` names it."""
    if not isinstance(peers, PeerMap):
        return whole(peers)
    if what not in peers.worked_out:
        root = peers.root
        if root is peers:
            peers.worked_out[what] = whole(peers)
        else:
            if what not in root.worked_out:
                root.worked_out[what] = whole(root)
            changes = [(root.get(key), peers.get(key)) for key in sorted(peers.changed)]
            peers.worked_out[what] = update(root.worked_out[what], changes)
    found: Value = peers.worked_out[what]
    return found
