"""From samples to medians, paired ratios, a table and a JSON file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics

from bench import DISTURBED_SHARE, Result
from samples import CellResult

SUBJECT = "larder"
FLOOR = "floor"
SPREAD_LIMIT = 0.10
UNKNOWN_SPREAD = 9.99  # of a single round


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One server's figure over another's: CPU time per request, or what else the cell compares."""

    of: str
    to: str
    value: float
    """The ratio of the medians."""
    spread: float
    """The interquartile range of the ratios of each round, as a share of their median."""
    lower: float
    upper: float
    """The quartiles themselves."""

    @property
    def conclusive(self) -> bool:
        return self.spread <= SPREAD_LIMIT


def ratio(result: CellResult, of: str, to: str) -> Ratio | None:
    """The paired ratio of two servers, or `None` when one has no figures in the cell."""
    metric = result.cell.metric
    mine = {sample.round: getattr(sample, metric) for sample in result.samples.get(of, [])}
    theirs = {sample.round: getattr(sample, metric) for sample in result.samples.get(to, [])}
    rounds = sorted(number for number in mine.keys() & theirs.keys() if theirs[number] > 0)
    if not rounds:
        return None
    value = statistics.median(mine[number] for number in rounds) / statistics.median(theirs[number] for number in rounds)
    pairs = [mine[number] / theirs[number] for number in rounds]
    if len(pairs) < 2:
        return Ratio(of, to, value, UNKNOWN_SPREAD, 0.0, UNKNOWN_SPREAD)
    lower, middle, upper = statistics.quantiles(pairs, n=4, method="inclusive")
    return Ratio(of, to, value, (upper - lower) / middle, lower, upper)


def best_peer(result: CellResult) -> str | None:
    """The peer with the best figure, Larder and the floor aside."""
    costs = {name: median(result, name, result.cell.metric) for name in result.samples if name not in (SUBJECT, FLOOR)}
    return min(costs, key=costs.__getitem__) if costs else None


def ratios(result: CellResult) -> list[Ratio]:
    """Larder to the best peer and the other peers, then every server to the floor."""
    best = best_peer(result)
    peers = sorted((name for name in result.samples if name not in (SUBJECT, FLOOR)), key=lambda name: name != best)
    found = [ratio(result, SUBJECT, name) for name in peers]
    found += [ratio(result, name, FLOOR) for name in (SUBJECT, *peers)]
    return [each for each in found if each is not None]


def heading(result: Result) -> str:
    """Where and how it was measured, with the versions of all."""
    options = result.options
    lines = [
        f"machine: {result.machine}",
        f"server on core {options.server_core}, load on core {options.load_core}; "
        f"{options.rounds} interleaved rounds of {options.seconds} s",
    ]
    return "\n".join([*lines, *(f"{name}: {version}" for name, version in result.versions.items())])


def table(result: CellResult) -> str:
    """One cell as text: a row for each server, then the ratios."""
    lines = [f"\n{result.cell.title}"]
    if result.cell.kind == "idle":
        lines.append("  {:<15}{:>16}{:>9}{:>9}".format("", "KiB/connection", "own MiB", "RSS MiB"))
        lines += [_idle_row(result, name) for name in result.samples]
    else:
        columns = ("", "req/s", "CPU µs/req", "p50 µs", "p99 µs", "own MiB", "RSS MiB", "busy", "softirq", "others")
        lines.append("  {:<15}{:>10}{:>12}{:>10}{:>10}{:>9}{:>9}{:>7}{:>9}{:>8}".format(*columns))
        lines += [_row(result, name) for name in result.samples]
    for name, reason in result.refused.items():
        lines.append(f"  {name:<15}refused: {reason}")
    lines += [f"  {note}" for note in result.notes]
    best = best_peer(result)
    for each in ratios(result):
        marks = " (best peer)" if each.of == SUBJECT and each.to == best else ""
        verdict = "" if each.conclusive else "  inconclusive"
        lines.append(f"  {each.of} / {each.to}{marks}: {each.value:.3f}, IQR {each.spread:.1%}{verdict}")
    agreed = sorted(set(filter(None, result.tls.values())))
    if agreed:
        users = {terms: ", ".join(name for name, its in result.tls.items() if its == terms) for terms in agreed}
        lines.append("  TLS: " + "; ".join(f"{terms} ({names})" for terms, names in users.items()))
    disturbed = [name for name in result.samples if median(result, name, "others_share") > DISTURBED_SHARE]
    if disturbed:
        lines.append(f"  the server's core was shared with other work while these ran: {', '.join(disturbed)}")
    return "\n".join(lines)


def write_json(result: Result, file: pathlib.Path) -> None:
    """Every sample as measured, their medians, and the ratios."""
    options = result.options
    content = {
        "date": result.date,
        "command": result.command,
        "machine": result.machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": result.versions,
        "settings": result.settings,
        "cells": [_cell_content(each) for each in result.cells],
    }
    file.write_text(json.dumps(content, indent=1) + "\n")


def _cell_content(result: CellResult) -> dict[str, object]:
    metric = result.cell.metric
    return {
        "name": result.cell.name,
        "title": result.cell.title,
        "metric": metric,
        "medians": {name: median(result, name, metric) for name in result.samples},
        "best_peer": best_peer(result),
        "ratios": [dataclasses.asdict(one) | {"conclusive": one.conclusive} for one in ratios(result)],
        "refused": result.refused,
        "tls": result.tls,
        "notes": result.notes,
        "samples": {name: [dataclasses.asdict(one) for one in many] for name, many in result.samples.items()},
    }


def _row(result: CellResult, name: str) -> str:
    def middle(field: str) -> float:
        return median(result, name, field)

    return (
        f"  {name:<15}{middle('requests_per_second'):>10.0f}{middle('cpu_us'):>12.2f}{middle('p50_us'):>10.0f}"
        f"{middle('p99_us'):>10.0f}{middle('own_kib') / 1024:>9.1f}{middle('resident_kib') / 1024:>9.1f}"
        f"{middle('server_share'):>7.0%}{middle('softirq_share'):>9.0%}{middle('others_share'):>8.0%}"
    )


def _idle_row(result: CellResult, name: str) -> str:
    own, resident = (median(result, name, field) / 1024 for field in ("own_kib", "resident_kib"))
    return f"  {name:<15}{median(result, name, 'idle_kib'):>16.1f}{own:>9.1f}{resident:>9.1f}"


def median(result: CellResult, name: str, field: str) -> float:
    """Of a server's samples."""
    return statistics.median(getattr(sample, field) for sample in result.samples[name])
