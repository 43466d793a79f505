"""How the command speaks: plain text on one door, errors in one red line on the other."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from vibnet.report import Recorded, rows

# Names come from other people's files: nothing in them is markup.
out = Console(markup=False, emoji=False, highlight=False)
problems = Console(stderr=True, markup=False, emoji=False, highlight=False)


def line(text: str = "", style: str = "") -> None:
    """One line, however long."""
    out.print(text, style=style, soft_wrap=True)


def warning(text: str) -> None:
    """Something looks wrong, and the work goes on."""
    problems.print(f"warning: {text}", style="yellow", soft_wrap=True)


def error(problem: Exception) -> None:
    """The work cannot go on."""
    problems.print("error: " + " ".join(str(problem).split()), style="red", soft_wrap=True)


def table(
    heads: Sequence[str], lines: Iterable[Sequence[str]], numbers: Sequence[int] = ()
) -> None:
    """A table without lines between its rows; columns in `numbers` are set to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        right = place in numbers
        made.add_column(head, justify="right" if right else "left", overflow="fold")
    for cells in lines:
        made.add_row(*cells)
    out.print(made)


def before_and_after(recorded: Recorded) -> None:
    """The sites and the figures of a run that is over."""
    sites = recorded.run["sites"]
    heads = ("units of", "dense", "small")
    table(heads, ((s["name"], f"{s['before']:,}", f"{s['after']:,}") for s in sites), (1, 2))
    line()
    figures = ((r.name, r.dense, r.small, r.change) for r in rows(recorded))
    table(("", "dense", "small", "small, of dense"), figures, (1, 2))
