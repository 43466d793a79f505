"""Figures for a document: SVG files with colours of their own on white."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vibnet.report.extra import check_extra

COLOURS = ("#2563a8", "#c2571a", "#2f7d4f", "#7a4fa3", "#8a6d1d")


@contextmanager
def figure(path: Path, columns: int = 1, width: float = 3.4) -> Iterator[list[Any]]:
    """Axes side by side, written to a file when all is drawn; the same drawing, the same bytes.

    Raises:
        ConfigError: the extra `report` is not installed.
    """
    check_extra("figures", "matplotlib")
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": path.stem,
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with mpl.rc_context(style):
        made = Figure(figsize=(width * columns, 2.8), layout="constrained")
        yield list(made.subplots(1, columns, squeeze=False).flat)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        path.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(path, format="svg", metadata=empty)
