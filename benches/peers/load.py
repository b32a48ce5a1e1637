"""The load: wrk for HTTP/1.1, h2load for HTTP/2, a client of our own for handshakes and paced requests.

Each is bounded in time and on its own core.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import re
import subprocess
import time
import urllib.parse

import tools
from cells import MIB, Cell
from meter import Meter

GRACE_SECONDS = 30
SETTLE_SECONDS = 0.05  # for the server to notice that its clients have left
SCRIPT = pathlib.Path(__file__).with_name("wrk.lua")


@dataclasses.dataclass(frozen=True)
class Load:
    """What one run of a load generator saw.

    `answers` counts whole answers. For large objects it is the received bytes in units of one answer, so that answers
    cut off at the end count for the part that was served.
    """

    answers: float
    seconds: float
    p50_us: float
    p99_us: float
    errors: list[str]


def drive(
    cell: Cell, url: str, etag: str, wire_bytes: int, seconds: int, core: int, scratch: pathlib.Path, meter: Meter
) -> Load:
    """Loads `url` for `seconds`, while the meter runs. `wire_bytes` is the length of one verified HTTP/1.1 answer."""
    run = Runner(core, seconds, meter)
    header = [word for field in cell.fields(etag) for word in ("-H", field)]
    if cell.kind in ("full", "resumed") or cell.rate:
        return _ours(cell, url, run)
    if cell.protocol == "h2":
        return _h2load(cell, url, header, run, scratch)
    return _wrk(cell, url, header, wire_bytes, run)


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs a load generator on its core, and the meter beside it."""

    core: int
    seconds: int
    meter: Meter

    def whole(self, command: list[str]) -> str:
        """Metered from its start to its end; returns what it has printed."""
        self.meter.start()
        pinned = ["taskset", "-c", str(self.core), *command]
        done = subprocess.run(pinned, capture_output=True, text=True, timeout=self.seconds + GRACE_SECONDS)
        time.sleep(SETTLE_SECONDS)
        self.meter.stop()
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def inner(self, command: list[str]) -> str:
        """Metered without the connections' begin and end: between the two lines that it prints; returns the second."""
        pinned = ["timeout", str(self.seconds + GRACE_SECONDS), "taskset", "-c", str(self.core), *command]
        pipe = subprocess.PIPE
        with subprocess.Popen(pinned, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            line = child.stdout.readline()
            if line:
                self.meter.start()
                child.stdin.write("\n")
                child.stdin.flush()
                line = child.stdout.readline()
                self.meter.stop()
            child.stdin.close()
            if not line:
                raise RuntimeError(f"{command[0]} failed: {child.stderr.read().strip()[-500:]}")
            return line


def _wrk(cell: Cell, url: str, header: list[str], wire_bytes: int, run: Runner) -> Load:
    command = ["wrk", "-t1", f"-c{cell.connections}", f"-d{run.seconds}s", "--timeout", "10s", "-s", str(SCRIPT), *header]
    output = run.whole([*command, url, *_script_arguments(cell)])
    line = re.search(r"^SUMMARY (.*)$", output, re.MULTILINE)
    if line is None:
        raise RuntimeError(f"wrk printed no summary: {output.strip()[-500:]}")
    figures = json.loads(line.group(1))
    errors = [f"{figures[kind]} {kind} errors" for kind in ("connect", "read", "write", "status", "timeout") if figures[kind]]
    requests, received = figures["requests"], figures["bytes"]
    if requests == 0:
        errors.append("no answers")
    # wrk does not tell a 200 from a 304 or a 206: the bytes do. Fields such as Age may change their length a little.
    slack = 64 * requests
    if not requests * wire_bytes - slack <= received <= (requests + cell.connections) * wire_bytes + slack:
        errors.append(f"{requests} answers of {wire_bytes} bytes, but {received} bytes received")
    answers = received / wire_bytes if len(cell.content) >= MIB else float(requests)
    return Load(answers, figures["microseconds"] / 1e6, figures["p50"], figures["p99"], errors)


def _script_arguments(cell: Cell) -> list[str]:
    now = time.monotonic_ns()
    if cell.kind == "miss":
        return ["--", "fresh", f"{now}-"]
    return ["--", "spread", str(cell.spread), str(now % 1_000_000)] if cell.spread > 1 else []


def _ours(cell: Cell, url: str, run: Runner) -> Load:
    """By our own client: handshakes, or requests at a rate. It gives no figures when an answer is wrong."""
    parts = urllib.parse.urlsplit(url)
    arguments = {
        "--port": parts.port, "--protocol": cell.protocol, "--path": parts.path, "--body": cell.size, "--seconds": run.seconds,
        "--connections": cell.connections, "--streams": cell.streams, "--rate": max(cell.rate, 1.0),
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    client = str(tools.client())
    figures = json.loads(run.inner([client, "pace", *words]) if cell.rate else run.whole([client, cell.kind, *words]))
    errors = [] if figures["answers"] else ["no answers"]
    return Load(figures["answers"], figures["seconds"], figures["p50"], figures["p99"], errors)


def _h2load(cell: Cell, url: str, header: list[str], run: Runner, scratch: pathlib.Path) -> Load:
    log = scratch / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{cell.connections}", f"-m{cell.streams}", f"-D{run.seconds}", f"--log-file={log}"]
    urls = [url]
    if cell.spread > 1:
        urls = [url.removesuffix(cell.path) + path for path in random.sample(cell.paths, cell.spread)]
        listed = scratch / "h2load.urls"
        listed.write_text("\n".join(urls) + "\n")
        urls = ["-i", str(listed)]
    output = run.whole([*command, *header, *urls])
    summary = re.search(
        r"(\d+) total, .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output
    )
    traffic = re.search(r"traffic: .*\((\d+)\) data", output)
    if summary is None or traffic is None:
        raise RuntimeError(f"h2load printed no summary: {output.strip()[-500:]}")
    done, failed, timeouts = int(summary.group(2)), int(summary.group(4)), int(summary.group(6))
    errors = []
    if failed or timeouts:
        errors.append(f"{failed} requests failed, {timeouts} timed out")
    if done == 0:
        errors.append("no answers")
    durations, statuses = _read_log(log)
    wanted = str(cell.status)
    if set(statuses) != {wanted}:
        errors.append(f"statuses other than {wanted}: {dict(statuses)}")
    body_bytes = len(cell.content)
    data, in_flight = int(traffic.group(1)), cell.connections * cell.streams
    if not done * body_bytes <= data <= (done + in_flight) * body_bytes:
        errors.append(f"{done} answers of {body_bytes} body bytes, but {data} bytes received")
    answers = data / body_bytes if body_bytes >= MIB else float(done)
    return Load(answers, float(run.seconds), _percentile(durations, 50), _percentile(durations, 99), errors)


def _read_log(log: pathlib.Path) -> tuple[list[int], dict[str, int]]:
    """(durations in microseconds, answers by status) of h2load's log: start, status, duration, tab-separated."""
    durations: list[int] = []
    statuses: dict[str, int] = {}
    with log.open() as lines:
        for line in lines:
            _start, status, duration = line.split("\t")[:3]
            durations.append(int(duration))
            statuses[status] = statuses.get(status, 0) + 1
    return sorted(durations), statuses


def _percentile(ordered: list[int], percent: int) -> float:
    return float(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]) if ordered else 0.0
