"""The factor L of eq. 9: the same gamma of the paper at several depths, with it and without."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vibnet import information
from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import job
from vibnet.recipes.summary import cell
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit

DEPTHS, SEEDS, WIDTH = (2, 4, 8, 16), (0, 1, 2), 64
GAMMA = 1e-3  # of eq. 9
EPOCHS = {"dense_epochs": 30, "gate_epochs": 60}
RECIPE = "digits-mlp"


def deep(layers: int) -> nn.Module:
    """A network of so many hidden layers, normed and rectified."""
    modules: list[nn.Module] = [nn.Flatten()]
    width = 64
    for _ in range(layers):
        modules += [nn.Linear(width, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
        width = WIDTH
    return nn.Sequential(*modules, nn.Linear(width, 10))


def one(layers: int, factor: bool, seed: int) -> dict[str, float]:
    """Units kept, in percent, and the validation errors of one run."""
    gamma = information.from_equation_9(GAMMA, layers if factor else 1)
    made = job(recipe(RECIPE), {**EPOCHS, "gamma": gamma, "seed": seed})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = deep(layers)
    fitted = fit(model, made.data, made.objective, made.settings)
    assert fitted.report is not None
    plan = fitted.report.plan
    kept, units = sum(len(k) for k in plan.kept.values()), sum(plan.sizes.values())
    assert fitted.small is not None
    return {
        "kept": 100 * kept / units,
        "dense": validate(fitted.dense, made.data.validation(), made.objective),
        "small": validate(fitted.small, made.data.validation(), made.objective),
    }


def depth(say: Callable[[str], None]) -> dict[str, Any]:
    """All depths, with the factor and without, over seeds."""
    rows = []
    for layers in DEPTHS:
        for factor in (True, False):
            runs = [one(layers, factor, seed) for seed in SEEDS]
            row: dict[str, Any] = {"layers": layers, "factor": factor}
            row |= {name: cell([run[name] for run in runs]) for name in runs[0]}
            rows.append(row)
            say(
                f"{layers} layers, {'with' if factor else 'without'} L: "
                f"{row['kept']['mean']:.1f} % of the units, {row['small']['mean']:.2f} % error"
            )
    return {"recipe": RECIPE, "gamma_eq9": GAMMA, "width": WIDTH, **EPOCHS, "rows": rows}
