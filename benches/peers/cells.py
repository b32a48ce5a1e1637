"""What is measured: one cell is one kind of object over one protocol, asked for in one way."""

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


# A hit from disk: so many objects, asked for in random order, that the memory tier of `DISK_TIER_MEMORY` holds few of them.
DISK_TIER_MEMORY = "1MiB"
DISK_TIER_MEMORY_BYTES = MIB
SPREAD: dict[str, int] = {"1k": 15_000, "16k": 4_000, "100k": 1_000, "1m": 64, "10m": 16}
HANDSHAKE_CLIENTS = 8
IDLE_CONNECTIONS = 5_000
PACED = [("1k", "plain"), ("1m", "plain"), ("100k", "tls"), ("1k", "h2")]

PROTOCOLS: dict[str, str] = {"plain": "HTTP/1.1 plain", "tls": "HTTP/1.1 TLS", "h2": "HTTP/2 TLS"}
TIERS = ("memory", "disk")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row group of the table. `protocol` is "plain", "tls" (both HTTP/1.1) or "h2" (HTTP/2 over TLS).

    `kind` is what happens: "hit"; "miss", where each request is for a new URL; "full" and "resumed", where each is on a new
    connection with such a handshake; "idle", where connections have one hit each and stay; "paced", hits at a given rate.
    """

    name: str
    object: str
    protocol: str
    connections: int
    streams: int = 1
    conditional: bool = False
    range: tuple[int, int] | None = None  # first and last byte, as a request names them
    kind: str = "hit"
    tier: str = "memory"
    spread: int = 1
    """How many objects of the size there are, asked for in random order."""
    rate: float = 0.0
    """Requests a second that are due, where they are paced."""

    @property
    def path(self) -> str:
        return f"/{self.object}"

    @property
    def paths(self) -> list[str]:
        """All that the cell's hits ask for."""
        return [self.path] if self.spread == 1 else [f"{self.path}/{number}" for number in range(self.spread)]

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

    @property
    def metric(self) -> str:
        """The figure of a sample that is compared."""
        return {"idle": "idle_kib", "paced": "p99_us"}.get(self.kind, "cpu_us")

    def fields(self, etag: str) -> list[str]:
        """The request's own fields, where `etag` is the object's."""
        fields = [f"If-None-Match: {etag}"] if self.conditional else []
        return fields + ([f"Range: bytes={self.range[0]}-{self.range[1]}"] if self.range else [])

    @property
    def title(self) -> str:
        streams = f" x {self.streams} streams" if self.protocol == "h2" and self.kind != "idle" else ""
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return f"{self.name}: {self._what(size)}, {PROTOCOLS[self.protocol]}, {self.connections} connections{streams}"

    def _what(self, size: str) -> str:
        if self.conditional:
            return f"304 to If-None-Match, object of {size}"
        if self.range:
            return f"206, {(self.range[1] + 1 - self.range[0]) // KIB} KiB from the middle of {size}"
        if self.kind in ("full", "resumed"):
            return f"{self.kind} handshake (TLS 1.3, ECDSA P-256) and one hit of {size}"
        if self.kind == "idle":
            return f"idle after one hit of {size}"
        if self.kind == "miss":
            return f"miss, {size} to be stored {'on disk' if self.tier == 'disk' else 'in memory'}"
        if self.kind == "paced":
            return f"memory hit, {size}, at a given rate"
        return f"disk hit, {self.spread} objects of {size}" if self.tier == "disk" else f"memory hit, {size}"


def _all_cells() -> list[Cell]:
    cells = [_hit(name, protocol) for protocol in PROTOCOLS for name in OBJECTS]
    cells.append(Cell("304", "1k", "plain", CONNECTIONS["1k"], conditional=True))
    cells.append(Cell("range", "1m", "plain", CONNECTIONS["16k"], range=(500_000, 500_000 + 16 * KIB - 1)))
    for kind in ("full", "resumed"):
        cells.append(Cell(f"handshake-{kind}", "1k", "tls", HANDSHAKE_CLIENTS, kind=kind))
    for name, protocol in PACED:
        hit = _hit(name, protocol)
        cells.append(dataclasses.replace(hit, name=f"{hit.name}-p99", kind="paced"))
    for protocol in PROTOCOLS:
        cells.append(Cell(f"idle-{protocol}", "1k", protocol, IDLE_CONNECTIONS, kind="idle"))
    cells += [_miss(name, "memory") for name in ("1k", "100k")]
    cells += [_disk_hit(name, protocol) for protocol in PROTOCOLS for name in OBJECTS]
    cells += [_miss(name, "disk") for name in ("1k", "100k")]
    return cells


def _hit(name: str, protocol: str) -> Cell:
    if protocol == "h2":
        return Cell(f"{name}-h2", name, "h2", CONNECTIONS[name] // 4, H2_STREAMS[name])
    return Cell(f"{name}-{protocol}", name, protocol, CONNECTIONS[name])


def _disk_hit(name: str, protocol: str) -> Cell:
    hit = _hit(name, protocol)
    if protocol == "h2":  # h2load goes through its list on each connection alike: on one, no URL comes twice in a row
        hit = dataclasses.replace(hit, connections=1, streams=16)
    return dataclasses.replace(hit, name=f"{hit.name}-disk", tier="disk", spread=SPREAD[name])


def _miss(name: str, tier: str) -> Cell:
    suffix = "-disk" if tier == "disk" else ""
    return Cell(f"{name}-miss{suffix}", name, "plain", CONNECTIONS[name], kind="miss", tier=tier)


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
