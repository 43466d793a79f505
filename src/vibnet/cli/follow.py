"""Many runs at the terminal: a line for each that is over, and how to go on after a stop."""

import shlex
import signal
import time
from pathlib import Path
from typing import Any

import typer

from vibnet.cli import say
from vibnet.recipes.grid import RUN, Point, claim, done
from vibnet.recipes.workers import run_all


def follow(points: list[Point], folder: Path, jobs: int, threads: int, command: str) -> int:
    """Make all points with a line for each; how many failed. `command`: without the folder.

    Raises:
        ConfigError: the folder holds something else; nothing has been said or written then.
    """
    claim(points, folder)  # `run_all` does too, for those who call it themselves
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

    again = f"{command} --out {shlex.quote(str(folder))}"
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
