"""A disk hit's objects: stored before the first load, every byte of each compared, and found in no other tier."""

from __future__ import annotations

import os

import probe
from cells import DISK_TIER_MEMORY_BYTES, KIB, Cell
from peer import Peer

IN_MEMORY_SHARE = 0.05
# Larger bodies are never in the memory tier; small ones are, if there is room.
SMALL_BYTES = 32 * KIB
PASSES = 4
SOME = 500


def fill(peer: Peer, cell: Cell) -> None:
    """Asks for all objects until the origin is not asked any more."""
    for _ in range(PASSES):
        if not peer.caches or _ask_all(peer, cell) == 0:
            os.sync()  # what is left to write would be written during the first loads
            return
    raise probe.Wrong(f"the origin is still asked after {PASSES} passes over {cell.spread} objects")


def check(peer: Peer, cell: Cell) -> list[str]:
    """After the loads: all is there, and hardly any of it was in the memory tier. Returns how much, where it is known."""
    notes = []
    held = peer.objects_in_memory()
    if held is not None and cell.size <= SMALL_BYTES:
        # What is read from disk when there is no room may leave its head in memory, and its body where it is.
        held = min(held, DISK_TIER_MEMORY_BYTES // cell.size)
        if held > IN_MEMORY_SHARE * cell.spread:
            raise probe.Wrong(f"{held} of {cell.spread} objects may have been in the memory tier: no hits from disk")
        notes.append(f"{peer.name}: {held / cell.spread:.1%} of the objects at most were in the memory tier")
    asked = _ask_all(peer, cell)
    if peer.caches and asked:
        raise probe.Wrong(f"{asked} of {cell.spread} objects are stored no more")
    return notes


def look(peer: Peer, cell: Cell) -> None:
    """Asks for some of the objects, which must be hits."""
    asked = _ask_all(peer, cell, step=max(1, cell.spread // SOME))
    if asked:
        raise probe.Wrong(f"{asked} of some {SOME} objects are not stored")


def _ask_all(peer: Peer, cell: Cell, step: int = 1) -> int:
    """One pass over all objects, or over each that is `step` after another; returns how often the origin was asked."""
    before = peer.rig.origin_requests()
    port = peer.port(cell.protocol)
    with probe.connect(port, cell.protocol != "plain") as connection:
        for path in cell.paths[::step]:
            answer = probe.exchange(connection, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            if answer.status != 200 or answer.body != cell.content:
                raise probe.Wrong(f"{path}: status {answer.status}, {len(answer.body)} body bytes that are not its own")
    return peer.rig.origin_requests() - before
