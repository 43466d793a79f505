"""Run the next unfinished rows of a table, or seeds of a recipe, in a given time, on a GPU.

    python benchmarks/gpu/rows.py --table table1 --seconds 540 --jobs 14 --out results
    python benchmarks/gpu/rows.py --recipe rescnn-fashion --seeds 0 1 2 --device cuda --out results

For a machine that is lent for a short time: it needs torch, numpy, safetensors and filelock, no
network, and the source of this checkout on the path (`PYTHONPATH=src`). Data are looked for in the
folder named by VIBNET_DATA. `--out` then holds a JSON for every run that is over, and `state.tar`:
the folders of all runs with their newest checkpoints. `--state state.tar` goes on from one.

Small networks gain little from a GPU but much from many processes: `--device cpu --jobs 16`.
"""

import argparse
import json
import os
import shutil
import signal
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from vibnet.recipes import tables
from vibnet.recipes.grid import Point, done
from vibnet.recipes.workers import run_all


def points(asked: argparse.Namespace) -> list[Point]:
    """What is to be run, runs before their controls."""
    changes = dict(item.split("=", 1) for item in asked.set)
    if asked.table:
        of = tables.table(asked.table)
        rows = asked.rows or list(of.entries)
        found = tables.points(of, rows, asked.seeds, changes, final=True, device=asked.device)
        return [point for row in found.values() for point in row]
    return [
        Point(
            f"{asked.recipe},seed={seed}",
            asked.recipe,
            {**changes, "seed": str(seed)},
            final=not asked.held_out,
            device=asked.device,
        )
        for seed in asked.seeds
    ]


def unpack(state: Path | None, work: Path) -> None:
    """Put the folders of a former call where this one works."""
    if state is not None:
        with tarfile.open(state) as archive:
            archive.extractall(work, filter="data")


def pack(every: list[Point], work: Path, out: Path) -> dict[str, Any]:
    """Results and state into the folder that goes back; what is over and what is not."""
    out.mkdir(parents=True, exist_ok=True)
    over, left = [], []
    for point in every:
        if done(point, work) is None:
            left.append(point.name)
        else:
            over.append(point.name)
            shutil.copyfile(work / point.name / "run.json", out / f"{point.name}.json")
    with tarfile.open(out / "state.tar", "w") as archive:
        for path in sorted(work.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                archive.add(path, path.relative_to(work).as_posix())
    return {"done": over, "left": left}


def main() -> None:
    """Read the arguments, run until all is over or the time is, and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", choices=sorted(tables.TABLES))
    what.add_argument("--recipe")
    parser.add_argument("--rows", nargs="+", help="of the table; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--held-out", action="store_true", help="of a recipe: hold images out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seconds", type=float, default=540.0, help="stop in time")
    parser.add_argument("--state", type=Path, help="state.tar of a former call")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    every = points(asked)
    begin = time.monotonic()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        unpack(asked.state, work)
        signal.setitimer(signal.ITIMER_REAL, asked.seconds)
        try:
            run_all(
                every,
                work,
                jobs=asked.jobs,
                command=f"benchmarks/gpu/rows.py --seeds {' '.join(map(str, asked.seeds))}",
                on_done=lambda p: print("over:", p.name, flush=True),
                on_failed=lambda p, text: print("failed:", p.name, text, flush=True),
            )
        except KeyboardInterrupt:
            print("the time is over", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        found = pack(every, work, asked.out)
    print(json.dumps(found | {"seconds": round(time.monotonic() - begin)}))


if __name__ == "__main__":
    main()
