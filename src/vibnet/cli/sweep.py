"""`vibnet sweep`: a recipe at several gammas, and the frontier of error against size."""

import math
import shlex
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vibnet.cli import given, say
from vibnet.cli.run import Device, Download, Final, Recipe, Sets
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe as recipe_of
from vibnet.recipes.grid import Point, done, run_all
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
    values, numbers = _numbers("gammas", gammas), [int(n) for n in _numbers("seeds", seeds, True)]
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
        for seed in numbers
    ]
    recipe_of(recipe).settings.replaced(**points[0].changes)  # refused before there is a folder
    folder = out or Path("runs") / f"sweep-{recipe}"
    command = _command(recipe, gammas, seeds, wanted, final, device)
    failures = follow(points, folder, jobs, threads, command)
    _finish(recipe, values, points, folder, command)
    if failures:
        raise typer.Exit(2)


def follow(points: list[Point], folder: Path, jobs: int, threads: int, command: str) -> int:
    """Make all points with a line for each; how many failed."""
    say.line(f"{len(points)} runs -> {folder}")
    begin, over, made = time.monotonic(), 0, 0
    there = {point.name for point in points if done(point, folder) is not None}

    def on_done(point: Point) -> None:
        nonlocal over, made
        over, made = over + 1, made + (point.name not in there)
        left = (time.monotonic() - begin) / max(1, made) * (len(points) - over)
        rest = f", about {left / 60:.0f} min left" if made and over < len(points) else ""
        say.line(f"{over}/{len(points)}  {point.name}: {_line(done(point, folder) or {})}{rest}")

    def on_failed(point: Point, problem: str) -> None:
        nonlocal over
        over += 1
        say.error(RuntimeError(f"{point.name}: {problem}"))

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return run_all(
            points,
            folder,
            jobs=jobs,
            threads=threads,
            command=command,
            on_done=on_done,
            on_failed=on_failed,
        )
    except KeyboardInterrupt as stopped:
        say.line(f"Stopped; checkpoints are kept. The same command goes on:\n  {command}")
        raise typer.Exit(128 + (stopped.args or (signal.SIGINT,))[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(body: dict[str, Any]) -> str:
    """A finished point in one line."""
    if "ratios" not in body:
        return f"test {body.get('test')}"
    ratios = body["ratios"]
    return (
        f"r_W {ratios['r_W']:.2f} %, {ratios['macs'] / 1e6:.3f} M, r_N {ratios['r_N']:.2f} %, "
        f"validation {body['validation']['small']:.2f}, test {body['test']['small']:.2f}"
    )


def _numbers(name: str, written: str, whole: bool = False) -> list[float]:
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
