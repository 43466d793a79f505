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

_T = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228  # 97.5 % of Student's t


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean of differences between pairs, half of its 95 % interval (Student's t), and how many.

    The half is None for one pair; beyond eleven it is that of eleven, which is wider.

    >>> paired([1.0, 3.0])["mean"], round(paired([1.0, 3.0])["half"], 3)
    (2.0, 12.706)
    """
    n = len(differences)
    half = None
    if n > 1:
        half = _T[min(n - 1, len(_T)) - 1] * statistics.stdev(differences) / n**0.5
    return {"mean": statistics.mean(differences), "half": half, "n": n}


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
