"""The README's comparison is what the kept figures give, and says what they say. `python3 -m unittest discover benches/peers`"""

from __future__ import annotations

import subprocess
import sys
import unittest

sys.dont_write_bytecode = True

import comparison  # noqa: E402
import tools  # noqa: E402
from targets import Target  # noqa: E402


def cell(
    name: str = "1k-plain", peer: float = 0.8, floor: float = 1.2, conclusive: bool = True, metric: str = "cpu_us"
) -> comparison.Figures:
    ratios = [{"of": "larder", "to": to, "value": value, "spread": 0.02, "conclusive": conclusive,
               "lower": value - 0.1, "upper": value + 0.1}
              for to, value in (("nginx-copy", peer), ("floor", floor))]
    medians = {"larder": 8.0, "nginx": 12.0, "nginx-copy": 10.0, "floor": 6.0}
    return {"name": name, "metric": metric, "medians": medians, "best_peer": "nginx-copy", "ratios": ratios,
            "refused": {"haproxy": "no"}, "samples": {"larder": [1, 2]}}


def run(*cells: comparison.Figures) -> comparison.Figures:
    return {"date": "2026-01-01", "command": "run", "machine": "a machine", "rounds": 15, "seconds": 2,
            "versions": {"larder": "1.0"}, "settings": {"larder": "one worker"}, "cells": list(cells)}


class Comparison(unittest.TestCase):
    def test_the_readme_is_what_the_kept_figures_give(self) -> None:
        done = subprocess.run([sys.executable, tools.HERE / "readme", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr or "run benches/peers/readme")

    def test_a_row_has_the_best_variant_each_run_s_ratios_and_the_verdict(self) -> None:
        block = comparison.block([run(cell()), run(cell(peer=0.85, conclusive=False))])
        row = "| 1k-plain | 8.0 | 10.0 | refused |  |  | 6.0 | 0.80, 0.85? | 1.20, 1.20? | 0.88, floor 1.28 | yes |"
        self.assertIn(row, block.splitlines())

    def test_an_aim_is_missed_by_one_conclusive_run_and_open_without_any(self) -> None:
        aim = Target(0.88, 1.28)
        self.assertEqual(comparison.held(aim, [cell(), cell(peer=0.9)]), "no")
        self.assertEqual(comparison.held(aim, [cell(), cell(floor=1.3, conclusive=False)]), "yes")
        self.assertEqual(comparison.held(aim, [cell(conclusive=False)]), "open")
        self.assertEqual(comparison.held(Target(None, own=8.0), [cell()]), "yes")
        self.assertEqual(comparison.held(Target(None, own=7.9), [cell()]), "no")

    def test_rounds_that_spread_tell_by_their_quartiles(self) -> None:
        for metric in ("cpu_us", "p99_us"):
            for peer, verdict in ((0.8, "yes"), (0.95, "open"), (1.2, "no")):
                cells = [cell(peer=peer, conclusive=False, metric=metric)]
                self.assertEqual(comparison.held(Target(1.0), cells), verdict)

    def test_only_what_is_between_the_markers_is_replaced(self) -> None:
        text = f"before\n{comparison.BEGIN}\nold\n{comparison.END}\nafter\n"
        expected = f"before\n{comparison.BEGIN}\nnew\n{comparison.END}\nafter\n"
        self.assertEqual(comparison.replaced(text, "new\n"), expected)
        for wrong in ("", text + text, f"{comparison.END}{comparison.BEGIN}"):
            with self.assertRaises(ValueError):
                comparison.replaced(wrong, "new\n")

    def test_samples_are_not_kept(self) -> None:
        self.assertNotIn("samples", comparison.condensed(run(cell()))["cells"][0])


if __name__ == "__main__":
    unittest.main()
