"""Curves and histograms as SVG for a page: colours and fonts are those of the page."""

import hashlib
import io
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vibnet.report.ticks import plain_log

# Colours that stand for the page's own; no other colour is drawn.
INK, FAINT, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404"
VARIABLES = {INK: "--ink", FAINT: "--faint", ACCENT: "--accent", SECOND: "--second"}
LOWEST, HIGHEST = 1e-3, 1e7  # of the signal-to-noise ratios that are told apart
PHASES = {"dense": "dense", "gate": "with gates", "tune": "after the cut"}
COLUMNS = 3


@contextmanager
def _drawing(rows: int, columns: int, height: float) -> Iterator[tuple[Any, list[Any]]]:
    """A figure and its axes in the page's style; nothing of it stays."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.4,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.0 * columns, height * rows), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _svg(figure: Any, about: str) -> str:
    """The figure as an SVG element without prolog, with names of its own and the page's colours."""
    import matplotlib as mpl

    target = io.StringIO()
    salt = hashlib.sha256(about.encode()).hexdigest()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=empty)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    prefix = salt[:8]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{about}"', 1)


def curves(history: Sequence[Mapping[str, Any]], metric: str, held_out: bool) -> str:
    """The metric, the nats and the units that stay, by epoch."""
    if not history:
        return ""
    steps = list(range(1, len(history) + 1))
    gate = [i for i, record in zip(steps, history, strict=True) if record["phase"] == "gate"]
    gated = [record for record in history if record["phase"] == "gate"]
    with _drawing(1, 3 if gate else 1, 2.3) as (figure, axes):
        where = "validation" if held_out else "training images"
        axes[0].set_title(f"{where}: {metric}")
        axes[0].plot(steps, [record["validation"] for record in history], color=ACCENT, lw=1.4)
        axes[0].set_ylim(0, _ceiling([record["validation"] for record in history]))
        if gate:
            axes[1].set_title("nats through all gates, by their prices")
            axes[1].plot(gate, [record["nats"] for record in gated], color=ACCENT, lw=1.4)
            axes[1].set_ylim(bottom=0)
            axes[2].set_title("units kept, by site, log scale")
            for name in gated[0]["kept"]:
                line = [max(1, record["kept"].get(name, 1)) for record in gated]
                axes[2].plot(gate, line, color=SECOND, lw=1.2, alpha=0.75)
            axes[2].set_yscale("log")
            for labels in (axes[2].yaxis.set_major_formatter, axes[2].yaxis.set_minor_formatter):
                labels(_few)
        for axis in axes:
            _phases(axis, history)
            axis.set_xlabel("epoch")
            axis.grid(axis="y")
        return _svg(figure, "the run by epoch")


def _few(value: float, _position: int) -> str:
    """A label for 1, 2 and 5 times a power of ten."""
    return f"{value:,.0f}" if value >= 1 and f"{value:.0f}"[0] in "125" else ""


def _ceiling(values: Sequence[float]) -> float | None:
    """The top of the axis: the first, untrained epochs may go out at the top."""
    finite = sorted(x for x in values if math.isfinite(x))
    if not finite:
        return None
    usual = finite[int(0.9 * (len(finite) - 1))]
    return min(finite[-1] * 1.05, 3 * usual) or 1.0


def _phases(axis: Any, history: Sequence[Mapping[str, Any]]) -> None:
    """A thin line where a phase begins."""
    before = history[0]["phase"]
    for step, record in enumerate(history):
        if record["phase"] != before:
            axis.axvline(step + 0.5, color=FAINT, lw=0.8, ls=":")
            before = record["phase"]


def histograms(snr: Mapping[str, Sequence[float]]) -> str:
    """How many units have which signal-to-noise ratio, site by site, with the cut at 1."""
    shown = {name: values for name, values in snr.items() if values}
    if not shown:
        return ""
    low, high = math.log10(LOWEST), math.log10(HIGHEST)
    edges = [low + 0.25 * i for i in range(round((high - low) / 0.25) + 1)]
    with _drawing(-(-len(shown) // COLUMNS), COLUMNS, 1.7) as (figure, axes):
        for axis, (name, values) in zip(axes, shown.items(), strict=False):
            logs = [_log(value) for value in values]
            axis.hist(logs, bins=edges, color=ACCENT)
            axis.axvline(0, color=SECOND, lw=1.2)
            axis.set_title(name if len(name) <= 40 else f"...{name[-37:]}")
            axis.set_xticks([-3, 0, 3, 6], ["0.001", "1", "1,000", "10⁶"])
            axis.set_xlim(low, high)
            axis.yaxis.get_major_locator().set_params(integer=True)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        return _svg(figure, "signal-to-noise ratios by site")


def _log(value: float) -> float:
    """The decimal logarithm, kept inside what is drawn; what is no number counts as lowest."""
    if math.isnan(value):
        return math.log10(LOWEST)
    return math.log10(min(max(value, LOWEST * 1.01), HIGHEST * 0.99))


Point = Mapping[str, Any]


def frontier(points: Sequence[Point], published: Mapping[str, Sequence[float | None]]) -> str:
    """Error against r_W, multiply-adds and r_N: means with their spread, runs, and printed rows.

    Args:
        points: one per setting: "r_W", "macs", "r_N" and "error", each the values of all seeds.
        published: r_W, multiply-adds in millions, r_N and error, by method.
    """
    with _drawing(1, 3, 2.6) as (figure, axes):
        names = ("r_W", "macs", "r_N")
        titles = ("r_W (%)", "multiply-adds (M)", "r_N (%)")
        for place, (axis, name, title) in enumerate(zip(axes, names, titles, strict=True)):
            axis.set_title(f"error (%) against {title}")
            means = sorted((_mean(p[name]), _mean(p["error"]), _spread(p["error"])) for p in points)
            for point in points:
                axis.plot(point[name], point["error"], ".", color=ACCENT, alpha=0.4, ms=4)
            columns = list(zip(*means, strict=True)) or [(), (), ()]
            axis.errorbar(*columns, color=ACCENT, lw=1.3, marker="o", ms=4, capsize=2)
            for method, row in published.items():
                if row[place] is None or row[3] is None:
                    continue
                axis.plot([row[place]], [row[3]], "D", color=SECOND, ms=4)
                shift = {"textcoords": "offset points", "xytext": (4, 3), "fontsize": 7}
                axis.annotate(method, (row[place], row[3]), color=SECOND, **shift)
            plain_log(axis, "x")
            axis.grid(axis="y")
        return _svg(figure, "error against size")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
