"""What is aimed at: Larder's figure over the best peer's and over the floor's, or a bound of its own."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    peer: float | None = 1.0
    """At most so much of the best peer's figure."""
    floor: float | None = None
    """At most so much of the floor's."""
    own: float | None = None
    """At most so much, whatever the others do."""

    def __str__(self) -> str:
        parts = [f"{self.peer:.2f}" if self.peer else "", f"floor {self.floor:.2f}" if self.floor else "",
                 f"{self.own:.0f}" if self.own else ""]
        return ", ".join(filter(None, parts))


# Every other cell should be below its best peer.
_TARGETS: dict[str, Target] = {
    "1k-plain": Target(0.88, 1.28),
    "16k-plain": Target(0.82, 1.22),
    "100k-plain": Target(0.90, 1.15),
    "1m-plain": Target(0.75, 1.10),
    "1k-tls": Target(0.88),
    "100k-tls": Target(0.48),
    "1m-tls": Target(0.60),
    "1k-h2": Target(1.05),
    "16k-h2": Target(0.58),
    "100k-h2": Target(0.45),
    "1m-h2": Target(0.55),
    "idle-plain": Target(None, own=24),
    "idle-tls": Target(None, own=48),
    "idle-h2": Target(None, own=64),
}


def target(cell: str) -> Target:
    """What is aimed at in a cell."""
    return _TARGETS.get(cell, Target())
