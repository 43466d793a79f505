"""One gamma for all layers against a gamma for each, at equal error."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import job
from vibnet.recipes.summary import cell
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit

RECIPE, SITES = "digits-mlp", ("1", "3")
RATIOS = (0.125, 0.5, 1.0, 2.0, 8.0)  # the first layer's price over the second's
GAMMAS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS = (0, 1, 2)
LEVELS = (1.0, 1.1, 1.25, 1.5, 2.0)  # of the least error that all ratios reach


def one(ratio: float, gamma: float, seed: int) -> tuple[float, float]:
    """Weights that stay, in percent, and the validation error."""
    made = job(recipe(RECIPE), {"gamma": gamma, "seed": seed})
    prices = dict(zip(SITES, (math.sqrt(ratio), 1 / math.sqrt(ratio)), strict=True))
    fitted = fit(made.model, made.data, made.objective, made.settings, options={"weights": prices})
    assert fitted.small is not None
    last = fitted.history[-1]
    weights = 100 * last.weights / fitted.history[0].weights
    return weights, validate(fitted.small, made.data.validation(), made.objective)


def prices(say: Callable[[str], None]) -> dict[str, Any]:
    """All ratios at all gammas, over seeds; the size of each ratio at errors all of them reach."""
    rows: list[dict[str, Any]] = []
    for ratio in RATIOS:
        for gamma in GAMMAS:
            weights, errors = zip(*(one(ratio, gamma, seed) for seed in SEEDS), strict=True)
            rows.append(
                {"ratio": ratio, "gamma": gamma, "r_W": cell(weights), "validation": cell(errors)}
            )
        say(f"price ratio {ratio:g}: {len(GAMMAS)} gammas, {len(SEEDS)} seeds")
    return {"recipe": RECIPE, "sites": SITES, "rows": rows, "equal_error": equal_error(rows)}


def equal_error(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The size that every ratio needs at errors that all of them reach, from the least such up."""
    lines: dict[float, list[tuple[float, float]]] = {}
    for row in rows:
        point = row["r_W"]["mean"], row["validation"]["mean"]
        lines.setdefault(row["ratio"], []).append(point)
    low = max(min(error for _, error in line) for line in lines.values())
    high = min(max(error for _, error in line) for line in lines.values())
    return [
        {
            "validation": part * low,
            "r_W": {f"{r:g}": size_at(line, part * low) for r, line in lines.items()},
        }
        for part in LEVELS
        if part * low <= high
    ]


def size_at(line: Sequence[tuple[float, float]], level: float) -> float:
    """The least size at which a line of (size, error) points comes down to an error.

    Between neighbours it is straight in the logarithm of the size.

    >>> round(size_at([(1.0, 4.0), (100.0, 2.0)], 3.0), 6)
    10.0
    """
    best = math.inf
    points = sorted(line)
    for size, error in points:
        if error <= level:
            best = min(best, size)
    for (a, high), (b, low) in itertools.pairwise(points):
        if low <= level < high:
            part = (high - level) / (high - low)
            best = min(best, math.exp(math.log(a) + part * (math.log(b) - math.log(a))))
    return best
