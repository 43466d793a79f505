"""`vibnet sweep`: a recipe at several gammas, and the frontier of error against size."""

import math
import shlex
from pathlib import Path
from typing import Annotated

import typer

from vibnet.cli import given, say
from vibnet.cli.follow import follow
from vibnet.cli.run import Device, Download, Final, Recipe, Sets
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe as recipe_of
from vibnet.recipes.grid import Point, done
from vibnet.recipes.summary import FIGURES, summary
from vibnet.report.frontier import short, write_frontier

Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, a process each.")]
Seeds = Annotated[str, typer.Option(metavar="N,N...", help="Every point is run with each.")]
Threads = Annotated[int, typer.Option(min=1, help="Of PyTorch, in each process.")]


def sweep(
    recipe: Recipe = None,
    gammas: Annotated[str, typer.Option(metavar="X,X...", help="The gammas, by commas.")] = "",
    seeds: Seeds = "0",
    changes: Sets = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/sweep-<recipe>.")] = None,
    jobs: Jobs = 1,
    threads: Threads = 1,
    final: Final = False,
    device: Device = "cpu",
    download: Download = False,
) -> None:
    """Run a recipe at several gammas and seeds, and draw error against size.

    The same command goes on where it stopped.
    """
    if recipe is None:
        raise ConfigError("sweep: name a recipe; `vibnet recipes` lists them.")
    wanted = given.changes(changes or [])
    for name in ("gamma", "seed", "budget"):
        if name in wanted:
            raise ConfigError(f"sweep sets {name} itself: leave --set {name}= out.")
    values = numbers("gammas", gammas)
    chosen = [int(n) for n in numbers("seeds", seeds, whole=True)]
    points = [
        Point(
            f"gamma={gamma:g},seed={seed}",
            recipe,
            {**wanted, "gamma": repr(gamma), "seed": str(seed)},
            final=final,
            device=given.device(device),
            download=download,
        )
        for gamma in values
        for seed in chosen
    ]
    recipe_of(recipe).settings.replaced(**points[0].changes)  # refused before there is a folder
    folder = out or Path("runs") / f"sweep-{recipe}"
    command = _command(recipe, gammas, seeds, wanted, final, device)
    failures = follow(points, folder, jobs, threads, command)
    _finish(recipe, values, points, folder, command)
    if failures:
        raise typer.Exit(2)


def numbers(name: str, written: str, whole: bool = False) -> list[float]:
    """Numbers by commas, each once."""
    try:
        values = [float(part) for part in written.split(",")]
    except ValueError as error:
        raise ConfigError(f"--{name} takes numbers by commas, got {written!r}.") from error
    good = all(math.isfinite(x) and x >= 0 and (not whole or x == int(x)) for x in values)
    if not good or len(set(values)) != len(values):
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(
            f"--{name} takes {kind} of at least 0, each once, by commas, got {written!r}."
        )
    return values


def _command(
    recipe: str, gammas: str, seeds: str, wanted: dict[str, str], final: bool, device: str
) -> str:
    words = ["vibnet", "sweep", recipe, "--gammas", gammas, "--seeds", seeds]
    for name, value in wanted.items():
        words += ["--set", f"{name}={value}"]
    words += ["--final"] if final else []
    words += ["--device", device] if device != "cpu" else []
    return shlex.join(words)


def _finish(
    recipe: str, gammas: list[float], points: list[Point], folder: Path, command: str
) -> None:
    """Write the frontier of what is over, and say it."""
    found = {point.name: done(point, folder) for point in points}
    rows = []
    for gamma in gammas:
        of = [p for p in points if float(p.changes["gamma"]) == gamma]
        runs = [body for p in of if (body := found[p.name]) is not None]
        if runs:
            row = summary(runs)
            shown = [name for name in FIGURES if name in row]
            each = [{name: FIGURES[name](run) for name in shown} for run in runs]
            rows.append({"gamma": gamma} | row | {"runs": each})
    if not rows:
        return
    entry = recipe_of(recipe)
    body = {
        "name": recipe,
        "about": entry.about,
        "command": command,
        "published": {name: list(row) for name, row in entry.published.items()},
        "rows": rows,
    }
    page = write_frontier(folder, body)
    names = [n for n in ("r_W", "macs", "r_N", "validation", "test") if n in rows[0]]
    heads = {"r_W": "r_W (%)", "macs": "MACs (M)", "r_N": "r_N (%)"}
    say.line()
    say.table(
        ("gamma", "runs", *(heads.get(n, f"{n} (%)") for n in names)),
        ([f"{row['gamma']:g}", str(row["n"]), *(short(row[n]) for n in names)] for row in rows),
        range(len(names) + 2),
    )
    say.line(f"\nfrontier:    {page}")
