"""Train the shape that a run ended with from new weights, as long as the run took in all.

    python benchmarks/recipes/seeds.py digits-mlp --final --seeds 0 1 2 3 4
    python benchmarks/recipes/scratch.py digits-mlp --final --seeds 0 1 2 3 4

The run's own folder (`--work`) must still be there. Adds "scratch" to the JSON of every seed: the
test error of the same shape with all epochs dense, under a cosine schedule and the same rate.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from seeds import RESULTS, folder_of
from torch import nn

import vibnet
from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import job
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit


def renewed(small: nn.Module, seed: int) -> nn.Module:
    """A model of the same shape with new weights."""
    torch.manual_seed(seed)
    for module in small.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return small


def one(name: str, seed: int, final: bool, work: Path) -> None:
    """Train one shape, unless its error is there."""
    kind = folder_of(name, final, {})
    target = RESULTS / kind / f"seed-{seed}.json"
    body = json.loads(target.read_text())
    if "scratch" in body:
        return
    epochs = body["settings"]["dense_epochs"] + body["settings"]["gate_epochs"]
    changes = {"dense_epochs": epochs, "gate_epochs": 0, "dense_schedule": "cosine"}
    made = job(recipe(name), {**changes, "seed": seed}, final=final)
    shape = vibnet.load(work / kind / f"seed-{seed}" / "model", recipe(name).network())
    fitted = fit(renewed(shape, seed), made.data, made.objective, made.settings)
    body["scratch"] = {
        "test": validate(fitted.dense, made.data.test(), made.objective),
        "parameters": sum(p.numel() for p in shape.parameters()),
        "epochs": epochs,
    }
    target.write_text(json.dumps(body, indent=1) + "\n")
    print(kind, seed, body["scratch"], flush=True)


def main() -> None:
    """Read the arguments and train, one seed after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--final", action="store_true", help="the runs on all training images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vibnet-seeds")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.set_flush_denormal(True)
    for seed in asked.seeds:
        one(asked.recipe, seed, asked.final, asked.work)


if __name__ == "__main__":
    main()
