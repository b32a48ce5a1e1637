"""One run of the benchmark: servers up, cells measured in interleaved rounds, servers down."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import idle
import load
import machine
import pace
import probe
import tools
import warm
from cells import TIERS, Cell
from meter import Meter
from peer import Peer
from rig import Rig, rig
from samples import CellResult, Sample

WARM_UP_SECONDS = 1
TRIES = 3
DISTURBED_SHARE = 0.10
IDLE_ROUNDS = 3  # memory hardly differs from one to the next


@dataclasses.dataclass(frozen=True)
class Options:
    cells: list[Cell]
    peers: list[type[Peer]]
    rounds: int = 15
    seconds: int = 2
    server_core: int = 0
    load_core: int = 1
    disk: pathlib.Path | None = None
    """Where the caches on disk are; `None`: where temporary files are."""


class Restless(Exception):
    """The server's processes changed during a sample, so its CPU time is not known. (nginx's cache loader leaves after a minute.)"""


@dataclasses.dataclass
class Result:
    machine: str
    options: Options
    command: str
    date: str
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    cells: list[CellResult] = dataclasses.field(default_factory=list)


def prepare(options: Options) -> None:
    """Installs and builds what the run needs; raises `tools.Missing` with what to do."""
    cores = os.sched_getaffinity(0)
    if options.server_core == options.load_core or not {options.server_core, options.load_core} <= cores:
        raise tools.Missing(f"two different cores are needed for server and load; there are {sorted(cores)}")
    packages = {"wrk": "wrk", "h2load": "nghttp2-client", "nghttp": "nghttp2-client", "openssl": "openssl"}
    for kind in options.peers:
        packages |= kind.packages
    tools.install(packages)
    tools.floor()
    if any(cell.kind in ("full", "resumed", "paced") for cell in options.cells):
        tools.client()
    if any(kind.name == "larder" for kind in options.peers):
        tools.larder()


def run(options: Options, each: Callable[[Result], None]) -> Result:
    """Measures all cells and calls `each` after every one. Whatever happens, no process is left behind."""
    end_with_signals()
    result = Result(machine.description(), options, _command(), time.strftime("%Y-%m-%d"))
    with contextlib.ExitStack() as stack:
        ground = stack.enter_context(rig(tools.floor(), options.server_core, options.load_core, options.disk))
        os.sched_setaffinity(0, {options.load_core})
        for tier in TIERS:
            cells = [cell for cell in options.cells if cell.tier == tier]
            with _servers(cells, tier, ground, options) as servers:
                result.versions |= {server.name: server.version() for server in servers}
                result.settings |= {server.name: server.settings for server in servers}
                for cell in cells:
                    able = [server for server in servers if server.does(cell)]
                    result.cells.append(_measure_cell(cell, able, ground, options))
                    each(result)
    return result


def _command() -> str:
    """The command that was given, without the names of its own folders."""
    words = sys.argv[1:]
    for option in ("--json", "--disk"):
        if option in words:
            at = words.index(option)
            words = words[:at] + words[at + 2 :]
    return shlex.join([f"benches/peers/{pathlib.Path(sys.argv[0]).name}", *words])


@contextlib.contextmanager
def _servers(cells: list[Cell], tier: str, ground: Rig, options: Options) -> Iterator[list[Peer]]:
    """Those that take part in some cell of a tier, for as long as its cells are measured."""
    servers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        for kind in options.peers:
            if any(kind.does(cell) for cell in cells):
                server = kind(ground, tier)
                stack.callback(server.stop)
                server.start()
                servers.append(server)
        yield servers


def end_with_signals() -> None:
    """Has SIGTERM and SIGHUP end the program as ^C does, with all that it started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))


def _measure_cell(cell: Cell, servers: list[Peer], ground: Rig, options: Options) -> CellResult:
    etag = probe.origin_etag(ground.origin_port, cell)
    if cell.kind == "idle":
        return _measure_idle(cell, servers, etag, ground, options)

    def rounds(cell: Cell, rates: dict[str, float], count: int) -> CellResult:
        able = [server for server in servers if not rates or server.name in rates]
        chosen = {server: dataclasses.replace(cell, rate=rates.get(server.name, 0.0)) for server in able}
        return _measure_rounds(cell, chosen, etag, ground, count, options.seconds)

    if cell.kind == "paced":
        return pace.measure(cell, options.rounds, rounds)
    return rounds(cell, {}, options.rounds)


def _measure_rounds(
    cell: Cell, chosen: dict[Peer, Cell], etag: str, ground: Rig, rounds: int, seconds: int
) -> CellResult:
    """A cell, as it is for each server, in interleaved rounds."""
    servers = list(chosen)
    result = CellResult(cell)
    _progress(f"{cell.name}: checking")
    wire_bytes: dict[str, int] = {}
    for server in servers:
        with _refusal(server, result):
            if cell.spread > 1:
                warm.fill(server, cell)
            wire_bytes[server.name], result.tls[server.name] = probe.verify(server, cell, etag)
            measure(server, chosen[server], etag, wire_bytes[server.name], WARM_UP_SECONDS, 0, ground)
    for number in range(1, rounds + 1):
        _progress(f"{cell.name}: round {number} of {rounds}")
        # Each round starts with another server, so that none always follows the same one.
        first = number % len(servers) if servers else 0
        for server in servers[first:] + servers[:first]:
            if server.name in result.refused:
                continue
            with _refusal(server, result):
                sample = measure(server, chosen[server], etag, wire_bytes[server.name], seconds, number, ground)
                result.samples.setdefault(server.name, []).append(sample)
    result.samples = {server.name: result.samples[server.name] for server in servers if server.name in result.samples}
    for server in servers:
        if server.name not in result.refused:
            with _refusal(server, result):
                probe.verify(server, cell, etag)
                if cell.spread > 1:
                    result.notes += warm.check(server, cell)
    _progress("")
    return result


def _measure_idle(cell: Cell, servers: list[Peer], etag: str, ground: Rig, options: Options) -> CellResult:
    result = CellResult(cell)
    for number in range(1, min(options.rounds, IDLE_ROUNDS) + 1):
        for server in servers:
            _progress(f"{cell.name}: round {number}, {server.name}")
            if server.name not in result.refused:
                with _refusal(server, result):
                    sample = idle.measure(type(server), cell, etag, number, ground)
                    result.samples.setdefault(server.name, []).append(sample)
    _progress("")
    return result


@contextlib.contextmanager
def _refusal(server: Peer, result: CellResult):
    """Turns a wrong answer into a refused row: such a server has no figures in the cell."""
    try:
        yield
    except (probe.Wrong, RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
        result.refused[server.name] = str(error)
        result.samples.pop(server.name, None)


def measure(server: Peer, cell: Cell, etag: str, wire_bytes: int, seconds: int, number: int, ground: Rig) -> Sample:
    """The first calm sample, else the calmest of a few: chosen by what others did, never by what was measured."""
    samples: list[Sample] = []
    for _ in range(TRIES):
        # A process that is gone has no CPU time to read.
        with contextlib.suppress(Restless, FileNotFoundError, ProcessLookupError):
            samples.append(_sample(server, cell, etag, wire_bytes, seconds, number, ground))
            if samples[-1].others_share <= DISTURBED_SHARE:
                break
    if not samples:
        raise probe.Wrong(f"processes of the server came or went during each of {TRIES} loads")
    return min(samples, key=lambda sample: sample.others_share)


def _sample(server: Peer, cell: Cell, etag: str, wire_bytes: int, seconds: int, number: int, ground: Rig) -> Sample:
    url = server.url(cell.protocol, cell.path)
    pids = server.pids()
    asked = ground.origin_requests()
    meter = Meter(pids, ground.server_core)
    seen = load.drive(cell, url, etag, wire_bytes, seconds, ground.load_core, ground.folder, meter)
    if server.pids() != pids:
        raise Restless
    if seen.errors:
        raise probe.Wrong(", ".join(seen.errors))
    if server.caches:
        probe.check_origin(cell, ground.origin_requests() - asked, seen.answers)
    own_kib, resident_kib = machine.memory_kib(pids)
    return Sample(
        round=number,
        requests_per_second=seen.answers / seen.seconds,
        cpu_us=meter.cpu / seen.answers * 1e6,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        own_kib=own_kib,
        resident_kib=resident_kib,
        server_share=meter.cpu / meter.elapsed,
        softirq_share=meter.deferred / meter.cpu,
        others_share=meter.others / meter.elapsed,
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
