"""A gamma to begin with, from a short run in which gamma rises."""

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.surgery.attach import parameter_groups, penalty
from vibnet.surgery.gated import Gated
from vibnet.train.evaluate import call
from vibnet.train.loop import Data
from vibnet.train.objective import Objective, classification

LOWEST, HIGHEST = 1e-7, 10.0


def suggest_gamma(
    gated: Gated,
    data: Data,
    objective: Objective | None = None,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    close: float = 0.5,
    steps: int = 400,
) -> float:
    """The gamma at which about a share of the units begins to close.

    A copy is trained for some steps while gamma rises evenly on a logarithmic scale. A unit is on
    its way when its mean has fallen to half; it set out ``mean / (2 * gate_lr)`` steps before, and
    gamma was then what it needs. A long training closes more units at the same gamma, because
    weights learn to do without them: take the result as an order of magnitude.

    Args:
        gated: what `vibnet.attach` returned, best trained without gates before; left untouched.
        data: training batches.
        objective: loss; classification by default.
        settings: batch, rates and weight decay, as in the run to come.
        close: share of the units, between 0 and 1, of all gated ones.
        steps: of the probe.

    Raises:
        ConfigError: a share out of range, too few steps, or fewer units than that can close.
    """
    check(close, steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        half = _half_way(copy.deepcopy(gated), data, objective or classification(), settings, steps)
    units = np.sort(half)
    needed = units[math.ceil(close * len(units)) - 1]
    if not math.isfinite(needed):
        raise ConfigError(
            f"suggest_gamma: in {steps} steps only {int(np.isfinite(units).sum())} of "
            f"{len(units)} units began to close. Give it more steps, or a larger gate_lr."
        )
    return float(needed)


def check(close: float, steps: int) -> None:
    """Refuse a share or a number of steps that cannot be.

    Raises:
        ConfigError: with both.
    """
    if not 0 < close < 1 or steps < 10:
        raise ConfigError(
            f"suggest_gamma: close must be between 0 and 1 and steps at least 10, got {close!r} "
            f"and {steps!r}."
        )


def _half_way(
    gated: Gated, data: Data, objective: Objective, settings: Settings, steps: int
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """For every unit the gamma at which it set out, infinite where it did not."""
    groups = parameter_groups(gated, settings.lr, settings.gate_lr, settings.weight_decay)
    optimizer = torch.optim.Adam(groups)
    start = gated.joined()[0].detach().abs()
    delay = (start / (2 * settings.gate_lr)).double().cpu().numpy()
    out = np.full(len(start), np.inf)
    gated.train()
    for step, (x, y) in zip(range(steps), _endless(data), strict=False):
        gamma = LOWEST * (HIGHEST / LOWEST) ** (step / steps)
        loss = objective.loss(call(gated, x), y) + penalty(gated, gamma)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        now = gated.joined()[0].detach().abs() < start / 2
        fresh = now.cpu().numpy() & np.isinf(out)
        set_out = np.maximum(step - delay, 0)
        out[fresh] = LOWEST * (HIGHEST / LOWEST) ** (set_out[fresh] / steps)
    return out


def _endless(data: Data) -> Iterator[tuple[Any, Any]]:
    for epoch in itertools.count():
        yield from data.train(epoch)
