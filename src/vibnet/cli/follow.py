"""Many runs at the terminal: a line for each that is over, and how to go on after a stop."""

import shlex
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from vibnet.cli import say
from vibnet.recipes.grid import POINT, RUN, Point, claim, done, over
from vibnet.recipes.workers import run_all


def follow(
    points: list[Point],
    folder: Path,
    jobs: int,
    threads: int,
    command: str,
    more: Sequence[str] = (),
    others: Sequence[Point] = (),
) -> int:
    """Make all points with a line for each; how many failed.

    Args:
        points: to make.
        folder: of their folders.
        jobs: points at a time.
        threads: of each.
        command: that makes them, without the folder.
        more: words that it was given and that change no run, said after a stop.
        others: that stand in the result beside them, where their folders are there.

    Raises:
        ConfigError: the folder holds something else; nothing has been said or written then.
    """
    names = {point.name for point in points}
    beside = [p for p in others if p.name not in names and (folder / p.name / POINT).exists()]
    claim([*points, *beside], folder)  # `run_all` does too, for those who call it themselves
    say.line(f"{len(points)} runs -> {folder}")
    begin, over, made = time.monotonic(), 0, 0
    there = {point.name for point in points if (folder / point.name / RUN).exists()}

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

    again = shlex.join([*shlex.split(command), "--out", str(folder), *more])
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
        say.line(f"Stopped; what is over and the last checkpoints are kept. Go on with:\n  {again}")
        raise typer.Exit(128 + (stopped.args or (signal.SIGINT,))[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def gathered(
    points: Sequence[Point], folder: Path, asked: Sequence[Point]
) -> tuple[dict[str, dict[str, Any]], int]:
    """What points of former calls and of this one gave; how many of the former are no use.

    Each of those is said; what is wrong with those asked for has been said when they were made.
    """
    wrong: dict[str, str] = {}
    found = over(points, folder, wrong)
    for point in asked:
        wrong.pop(point.name, None)
    for text in wrong.values():
        say.error(RuntimeError(text))
    return found, len(wrong)


def _line(body: dict[str, Any]) -> str:
    """A finished point in one line."""
    if "ratios" not in body:
        return f"test {body.get('test')}"
    ratios = body["ratios"]
    held = "validation" if body["notes"].get("images", {}).get("validation", 1) else "training"
    return (
        f"r_W {ratios['r_W']:.2f} %, {ratios['macs'] / 1e6:.3f} M, r_N {ratios['r_N']:.2f} %, "
        f"{held} {body['validation']['small']:.2f}, test {body['test']['small']:.2f}"
    )
