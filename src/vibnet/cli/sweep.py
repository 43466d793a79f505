"""`vibnet sweep`: a recipe at several gammas, and the frontier of error against size."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vibnet.cli import given, say
from vibnet.cli.follow import follow, gathered
from vibnet.cli.run import Device, Download, Final, Recipe, Sets, Weights
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe as recipe_of
from vibnet.recipes.grid import Point
from vibnet.recipes.summary import FIGURES, summary
from vibnet.report.extra import check_extra
from vibnet.report.frontier import brief, short, write_frontier
from vibnet.report.render import NEEDED
from vibnet.train.loop import check

Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, a process each.")]
Seeds = Annotated[str, typer.Option(metavar="N,N...", help="Every point is run with each.")]
Threads = Annotated[int, typer.Option(min=1, help="Of PyTorch, in each process.")]


def sweep(
    recipe: Recipe = None,
    gammas: Annotated[str, typer.Option(metavar="X,X...", help="The gammas, by commas.")] = "",
    seeds: Seeds = "0",
    changes: Sets = None,
    weights: Weights = None,
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
    check_extra("report", *NEEDED)  # what the page at the end needs
    wanted = given.changes(changes or [])
    for name in ("gamma", "seed", "budget"):
        if name in wanted:
            raise ConfigError(f"sweep sets {name} itself: leave --set {name}= out.")
    values = numbers("gammas", gammas)
    chosen = [int(n) for n in numbers("seeds", seeds, whole=True)]
    like = Point("", recipe, wanted, given.prices(weights), final, given.device(device), download)
    points = [_point(like, gamma, seed) for gamma in values for seed in chosen]
    for point in points:  # refused before there is a folder
        recipe_of(recipe).settings.replaced(**point.changes)
    if weights is not None:
        first = points[0].job()
        check(first.model, first.data.example, first.settings, first.options)
    folder = out or Path("runs") / f"sweep-{recipe}"
    command = _command(recipe, gammas, seeds, wanted, weights, final, device, threads)
    more = (["--jobs", str(jobs)] if jobs != 1 else []) + (["--download"] if download else [])
    others = _others(points[0], folder)
    failures = follow(points, folder, jobs, threads, command, more, others)
    every = [*points, *others]
    found, damaged = gathered(every, folder, points)
    _finish(recipe, every, found, folder, command)
    if failures + damaged:
        raise typer.Exit(2)


def _point(like: Point, gamma: float, seed: int) -> Point:
    changes = {**like.changes, "gamma": repr(gamma), "seed": str(seed)}
    return replace(like, name=f"gamma={brief(gamma)},seed={seed}", changes=changes)


def _others(like: Point, folder: Path) -> list[Point]:
    """Points of the same sweep that are in its folder already, at any gamma and seed."""
    found = []
    for path in sorted(folder.glob("gamma=*,seed=*")):
        written = dict(part.partition("=")[::2] for part in path.name.split(","))
        try:
            gamma, seed = float(written["gamma"]), int(written["seed"])
        except ValueError:
            continue
        changes = {**like.changes, "gamma": repr(gamma), "seed": str(seed)}
        found.append(replace(like, name=path.name, changes=changes))
    return found


def numbers(name: str, written: str, whole: bool = False) -> list[float]:
    """Numbers by commas, each once."""
    if "_" in written:
        raise ConfigError(f"--{name} takes numbers by commas, got {written!r}.")
    try:
        values = [int(x) if whole else float(x) for x in written.split(",")]
    except ValueError as error:
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(f"--{name} takes {kind} by commas, got {written!r}.") from error
    good = all(math.isfinite(x) and x >= 0 for x in values)
    if not good or len(set(values)) != len(values):
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(
            f"--{name} takes {kind} of at least 0, each once, by commas, got {written!r}."
        )
    return values


def _command(
    recipe: str,
    gammas: str,
    seeds: str,
    wanted: dict[str, str],
    weights: str | None,
    final: bool,
    device: str,
    threads: int,
) -> str:
    words = ["vibnet", "sweep", recipe, "--gammas", gammas, "--seeds", seeds]
    for name, value in wanted.items():
        words += ["--set", f"{name}={value}"]
    words += ["--weights", weights] if weights is not None else []
    words += ["--final"] if final else []
    words += ["--device", device] if device != "cpu" else []
    words += ["--threads", str(threads)] if threads != 1 else []
    return shlex.join(words)


def _finish(
    recipe: str,
    points: list[Point],
    found: dict[str, dict[str, Any]],
    folder: Path,
    command: str,
) -> None:
    """Write the frontier of what is over, and say it."""
    rows = []
    for gamma in sorted({float(p.changes["gamma"]) for p in points}):
        names = {p.name for p in points if float(p.changes["gamma"]) == gamma}
        runs = [found[name] for name in sorted(names & set(found))]
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
        "options": points[0].options,
        "published": {name: list(row) for name, row in entry.published.items()},
        "rows": rows,
    }
    page = write_frontier(folder, body)
    shown = [n for n in ("r_W", "macs", "r_N", "validation", "test") if n in rows[0]]
    heads = {"r_W": "r_W (%)", "macs": "MACs (M)", "r_N": "r_N (%)"}
    say.line()
    say.table(
        ("gamma", "runs", *(heads.get(n, f"{n} (%)") for n in shown)),
        ([brief(row["gamma"]), str(row["n"]), *(short(row[n]) for n in shown)] for row in rows),
        range(len(shown) + 2),
    )
    say.line(f"\nfrontier:    {page}")
