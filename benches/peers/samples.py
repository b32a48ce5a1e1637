"""What a run brings forth: samples, by cell and server."""

from __future__ import annotations

import dataclasses

from cells import Cell


@dataclasses.dataclass(frozen=True)
class Sample:
    """One server, one cell, one round."""

    round: int
    requests_per_second: float
    cpu_us: float
    p50_us: float
    p99_us: float
    own_kib: int
    resident_kib: int
    server_share: float
    """Of the server's core: how much of the time it worked for the server."""
    softirq_share: float
    """Of `cpu_us`: the part that the kernel's softirq thread did for the server."""
    others_share: float
    """Of the server's core: how much of the time anything else did, a hypervisor's other guests included."""
    idle_kib: float = 0.0
    """What a connection adds to `own_kib`, where connections are what is measured."""


@dataclasses.dataclass
class CellResult:
    cell: Cell
    samples: dict[str, list[Sample]] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    tls: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    """What else is to know of how it was measured."""
