"""Run a recipe over several seeds, one JSON a seed; a run that is there is not made again.

    python benchmarks/recipes/seeds.py lenet300-mnist --final --seeds 0 1 2
    python benchmarks/recipes/seeds.py lenet300-mnist --final --seeds 0 1 2 3 4 --set shrink=false

An interrupted seed goes on from its checkpoint. `table.py` makes the tables.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import job, run

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host

RESULTS = Path(__file__).parent / "results"


def folder_of(name: str, final: bool, changes: dict[str, str]) -> str:
    """The name under which a kind of run is kept."""
    parts = [name, "final" if final else "held-out", *(f"{k}={v}" for k, v in changes.items())]
    return ",".join(parts)


def one(name: str, seed: int, final: bool, changes: dict[str, str], work: Path) -> None:
    """Make one run, unless its JSON is there."""
    kind = folder_of(name, final, changes)
    target = RESULTS / kind / f"seed-{seed}.json"
    if target.exists():
        return
    made = job(recipe(name), {**changes, "seed": seed}, final=final)
    flags = (" --final" if final else "") + f" --seeds {seed}"
    sets = "".join(f" --set {key}={value}" for key, value in changes.items())
    out = work / kind / f"seed-{seed}"
    command = f"benchmarks/recipes/seeds.py {name}{flags}{sets}"
    body = run(made, out, resume=out.exists(), command=command)
    body["history"] = body["history"][-1:]  # the whole of it is in the run's own folder
    body.pop("snr", None)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(body, indent=1) + "\n")
    print(
        kind, seed, body["ratios"], body["test"], f"{body['timing']['seconds']:.0f} s", flush=True
    )


def main() -> None:
    """Read the arguments and make the runs, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--final", action="store_true", help="train on all training images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vibnet-seeds")
    asked = parser.parse_args()
    host(asked.threads)  # sets the threads, and keeps freed memory with the process
    torch.set_flush_denormal(True)
    changes = dict(item.split("=", 1) for item in asked.set)
    for seed in asked.seeds:
        one(asked.recipe, seed, asked.final, changes, asked.work)


if __name__ == "__main__":
    main()
