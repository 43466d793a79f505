"""Figures of several runs of the same settings: means over seeds, never the best of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FIGURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "r_W": lambda run: run["ratios"]["r_W"],
    "macs": lambda run: run["ratios"]["macs"] / 1e6,
    "r_N": lambda run: run["ratios"]["r_N"],
    "validation": lambda run: run["validation"]["small"],
    "test": lambda run: run["test"]["small"],
    "dense_test": lambda run: run["test"]["dense"],
}


def cell(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample, 0 of one), least, largest, and how many."""
    return {
        "mean": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
        "best": min(values),
        "worst": max(values),
        "n": len(values),
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All figures of finished runs that differ in their seed only.

    r_W and r_N are in percent, multiply-adds in millions, errors in the unit of the metric. A run
    that trained on all images has no validation figure.
    """
    held_out = all(run["notes"].get("images", {}).get("validation", 1) for run in runs)
    names = [name for name in FIGURES if held_out or name != "validation"]
    cells = {name: cell([FIGURES[name](run) for run in runs]) for name in names}
    return {"seeds": [run["settings"]["seed"] for run in runs], "n": len(runs)} | cells
