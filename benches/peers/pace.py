"""p99 at 70 % of the saturating rate: what each bears is found first, then requests come at a rate, whatever becomes of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

from cells import Cell
from samples import CellResult

SHARE = 0.70
SATURATION_ROUNDS = 3
NO_PEERS = ("larder", "floor")

# Measures a cell in some rounds, at a rate for each server; a server without one is saturated.
Rounds = Callable[[Cell, dict[str, float], int], CellResult]


def measure(cell: Cell, rounds: int, measured: Rounds) -> CellResult:
    """Everybody at 70 % of what the best peer bears; in the notes, also at 70 % of what each bears itself."""
    closed = measured(dataclasses.replace(cell, kind="hit"), {}, min(rounds, SATURATION_ROUNDS))
    borne = {
        name: statistics.median(sample.requests_per_second for sample in samples) for name, samples in closed.samples.items()
    }
    best = max((rate for name, rate in borne.items() if name not in NO_PEERS), default=max(borne.values(), default=0.0))
    result = measured(cell, dict.fromkeys(borne, SHARE * best), rounds)
    own = measured(cell, {name: SHARE * rate for name, rate in borne.items()}, rounds)
    result.refused = closed.refused | result.refused
    result.notes.append(f"due: {SHARE * best:.0f} requests/s, {SHARE:.0%} of what the best peer bears")
    for name, samples in own.samples.items():
        p99 = statistics.median(sample.p99_us for sample in samples)
        result.notes.append(f"{name} at {SHARE * borne[name]:.0f} requests/s, {SHARE:.0%} of its own: p99 {p99:.0f} µs")
    result.notes += [f"{name} at {SHARE:.0%} of its own: refused: {reason}" for name, reason in own.refused.items()]
    return result
