"""What is measured: one cell is one object over one protocol, asked for in one way."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import random

KIB = 1024
MIB = 1024 * KIB

OBJECTS: dict[str, int] = {"1k": KIB, "16k": 16 * KIB, "100k": 100 * KIB, "1m": MIB, "10m": 10 * MIB}

# Enough connections that the load generator is never asleep (waking it would be charged to the server), few enough
# that answers cut off at the end of a load don't weigh.
CONNECTIONS: dict[str, int] = {"1k": 64, "16k": 64, "100k": 64, "1m": 64, "10m": 16}
H2_STREAMS: dict[str, int] = {"1k": 8, "16k": 8, "100k": 4, "1m": 4, "10m": 2}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row group of the table. `protocol` is "plain", "tls" (both HTTP/1.1) or "h2" (HTTP/2 over TLS)."""

    name: str
    object: str
    protocol: str
    connections: int
    streams: int = 1
    conditional: bool = False
    range: tuple[int, int] | None = None  # first and last byte, as a request names them

    @property
    def path(self) -> str:
        return f"/{self.object}"

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return OBJECTS[self.object]

    @property
    def status(self) -> int:
        return 304 if self.conditional else 200 if self.range is None else 206

    @property
    def content(self) -> bytes:
        """The bytes of the answer's body."""
        if self.conditional:
            return b""
        first, last = self.range or (0, self.size - 1)
        return body(self.object)[first : last + 1]

    def fields(self, etag: str) -> list[str]:
        """The request's own fields, where `etag` is the object's."""
        fields = [f"If-None-Match: {etag}"] if self.conditional else []
        return fields + ([f"Range: bytes={self.range[0]}-{self.range[1]}"] if self.range else [])

    @property
    def title(self) -> str:
        protocol = {"plain": "HTTP/1.1 plain", "tls": "HTTP/1.1 TLS", "h2": "HTTP/2 TLS"}[self.protocol]
        streams = f" x {self.streams} streams" if self.protocol == "h2" else ""
        kind = "304 to If-None-Match, object of" if self.conditional else "memory hit,"
        if self.range:
            kind = f"206, {(self.range[1] + 1 - self.range[0]) // KIB} KiB from the middle of"
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return f"{self.name}: {kind} {size}, {protocol}, {self.connections} connections{streams}"


def _all_cells() -> list[Cell]:
    cells = [Cell(f"{name}-plain", name, "plain", CONNECTIONS[name]) for name in OBJECTS]
    cells += [Cell(f"{name}-tls", name, "tls", CONNECTIONS[name]) for name in OBJECTS]
    for name in OBJECTS:
        cells.append(Cell(f"{name}-h2", name, "h2", CONNECTIONS[name] // 4, H2_STREAMS[name]))
    cells.append(Cell("304", "1k", "plain", CONNECTIONS["1k"], conditional=True))
    cells.append(Cell("range", "1m", "plain", CONNECTIONS["16k"], range=(500_000, 500_000 + 16 * KIB - 1)))
    return cells


CELLS: list[Cell] = _all_cells()


def select(patterns: str) -> list[Cell]:
    """The cells that match a comma-separated list of names or shell patterns; a pattern without a match is an error."""
    chosen: list[Cell] = []
    for pattern in patterns.split(","):
        matching = [cell for cell in CELLS if fnmatch.fnmatchcase(cell.name, pattern.strip())]
        if not matching:
            raise ValueError(f"no cell named {pattern!r}; there are: {', '.join(cell.name for cell in CELLS)}")
        chosen += [cell for cell in matching if cell not in chosen]
    return chosen


@functools.cache
def body(name: str) -> bytes:
    """The bytes of an object: random to a compressor, the same in every run."""
    return random.Random(f"larder-{name}").randbytes(OBJECTS[name])
