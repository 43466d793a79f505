"""Labels of logarithmic axes, as plain numbers that do not run into each other."""

import math
from typing import Any

FEW = 1.5  # decades up to which 2 and 5 times a power of ten are labelled too


def plain_log(axis: Any, which: str) -> None:
    """Make the "x" or "y" axis of a drawing logarithmic, once all is drawn in it."""
    edges = [value for value in getattr(axis.dataLim, f"interval{which}") if value > 0]
    if edges and min(edges) == max(edges):  # a single value has no scale of its own
        getattr(axis, f"set_{which}lim")(edges[0] / 2, edges[0] * 2)
    getattr(axis, f"set_{which}scale")("log")
    low, high = getattr(axis, f"get_{which}lim")()
    few = math.log10(high / low) <= FEW
    side = getattr(axis, f"{which}axis")
    side.set_major_formatter(lambda value, _place: f"{value:g}")
    side.set_minor_formatter(lambda value, _place: _minor(value) if few else "")


def _minor(value: float) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
