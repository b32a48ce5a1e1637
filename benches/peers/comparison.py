"""The README's comparison: tables made of the figures of one or more runs, the medians and ratios of which are kept."""

from __future__ import annotations

import json
import pathlib
import statistics
from typing import Any

from targets import Target, target

Figures = dict[str, Any]  # what `report.write_json` writes

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
SUBJECT, FLOOR = "larder", "floor"
# One column each; of a server's variants the best counts, in each cell.
COLUMNS: dict[str, list[str]] = {
    "nginx": ["nginx", "nginx-nocork", "nginx-copy"],
    "haproxy": ["haproxy"],
    "varnish": ["varnish"],
    "trafficserver": ["trafficserver"],
    "floor": [FLOOR],
}
METRICS: dict[str, tuple[str, str]] = {
    "cpu_us": ("CPU time of a request, µs", "{:.1f}"),
    "p99_us": ("p99 at a given rate, µs", "{:.0f}"),
    "idle_kib": ("Memory of an idle connection, KiB", "{:.1f}"),
}


def condensed(figures: Figures) -> Figures:
    """Without the samples."""
    cells = [{name: value for name, value in cell.items() if name != "samples"} for cell in figures["cells"]]
    return figures | {"cells": cells}


def read(files: list[pathlib.Path]) -> list[Figures]:
    """The figures of runs; raises ValueError with what is wrong with a file."""
    runs = []
    for file in files:
        try:
            figures = json.loads(file.read_text())
            if not figures["cells"]:
                raise ValueError("no cells")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} has no figures of a run: {error!r}") from error
        runs.append(figures)
    return runs


def replaced(text: str, block: str) -> str:
    """A document with another block between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the document needs one {BEGIN} before one {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{block}{END}{rest.partition(END)[2]}"


def block(runs: list[Figures]) -> str:
    """All that stands between the markers."""
    lines = _provenance(runs)
    cells = list({cell["name"]: cell["metric"] for run in runs for cell in run["cells"]}.items())
    for metric, (title, form) in METRICS.items():
        names = [name for name, its_metric in cells if its_metric == metric]
        if names:
            lines += ["", f"**{title}**", "", *_table(names, runs, form)]
    lines += ["", *_servers(runs)]
    return "\n".join(lines) + "\n"


def _provenance(runs: list[Figures]) -> list[str]:
    lines = []
    if any(run.get("provisional") for run in runs):
        lines += ["*Provisional: of short runs that prove nothing; measured again before a release.*", ""]
    lines.append(
        "Medians of all runs. Ratios are of each run, with a ? where its rounds spread by more than 10 % (IQR). A run tells of an "
        "aim when they spread by less, or when both quartiles lie on one side of it; an aim is held when one tells and none that "
        "tells misses it. refused: an answer was not right, so there are no figures."
    )
    lines.append("")
    for number, run in enumerate(runs, 1):
        lengths = f"{run['rounds']} rounds of {run['seconds']} s"
        lines.append(f"- run {number}: {run['date']}, `{run['command']}`, {lengths}; {run['machine']}")
    return lines


def _servers(runs: list[Figures]) -> list[str]:
    versions = {name: text for run in runs for name, text in run["versions"].items()}
    settings = {name: text for run in runs for name, text in run["settings"].items()}
    return [f"- {name} ({version}): {settings[name]}" for name, version in versions.items()]


def _table(names: list[str], runs: list[Figures], form: str) -> list[str]:
    lines = [f"| | larder | {' | '.join(COLUMNS)} | to the best peer | to the floor | aim | held |"]
    lines.append("|---" * (len(COLUMNS) + 6) + "|")
    for name in names:
        cells = [cell for run in runs for cell in run["cells"] if cell["name"] == name]
        figures = [_figure(cells, [SUBJECT], form), *(_figure(cells, variants, form) for variants in COLUMNS.values())]
        aim = target(name)
        to_peer = [_ratio(cell, cell["best_peer"]) for cell in cells]
        to_floor = [_ratio(cell, FLOOR) for cell in cells]
        row = [name, *figures, _ratios(to_peer), _ratios(to_floor), str(aim), held(aim, cells)]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _figure(cells: list[Figures], names: list[str], form: str) -> str:
    found = [min(cell["medians"][name] for name in names if name in cell["medians"]) for cell in cells
             if any(name in cell["medians"] for name in names)]
    if found:
        return form.format(statistics.median(found))
    return "refused" if any(name in cell["refused"] for cell in cells for name in names) else ""


def _ratio(cell: Figures, to: str | None) -> Figures | None:
    return next((each for each in cell["ratios"] if each["of"] == SUBJECT and each["to"] == to), None)


def _ratios(found: list[Figures | None]) -> str:
    return ", ".join(f"{each['value']:.2f}{'' if each['conclusive'] else '?'}" for each in found if each)


def held(aim: Target, cells: list[Figures]) -> str:
    """"yes" or "no" by the runs that tell; "open" where there is none for a part of the aim."""
    verdicts: list[bool | None] = []
    for limit, is_floor in ((aim.peer, False), (aim.floor, True)):
        if limit is not None:
            found = [_ratio(cell, FLOOR if is_floor else cell["best_peer"]) for cell in cells if _tells(cell, limit, is_floor)]
            verdicts.append(_all_at_most(limit, [each["value"] for each in found if each]))
    if aim.own is not None:
        verdicts.append(_all_at_most(aim.own, [cell["medians"][SUBJECT] for cell in cells if SUBJECT in cell["medians"]]))
    if False in verdicts:
        return "no"
    return "open" if None in verdicts else "yes"


def _tells(cell: Figures, limit: float, is_floor: bool) -> bool:
    """Whether a run is conclusive, or its rounds spread on one side of the limit: both quartiles are there."""
    found = _ratio(cell, FLOOR if is_floor else cell["best_peer"])
    if found is None:
        return False
    return found["conclusive"] or found["upper"] <= limit or found["lower"] > limit


def _all_at_most(limit: float, values: list[float]) -> bool | None:
    return all(value <= limit for value in values) if values else None
