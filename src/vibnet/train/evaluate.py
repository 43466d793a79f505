"""A model's answers, and the mean of a metric over batches."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vibnet.errors import ConfigError, TrainingError
from vibnet.graph.capture.example import arguments
from vibnet.train.objective import Objective

Batches = Iterable[tuple[Any, Any]]


def call(model: nn.Module, x: Any) -> Any:
    """A model's answer to a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(x, Tensor):
        return model(x)
    args, kwargs = arguments(x)
    return model(*args, **kwargs)


def validate(model: nn.Module, batches: Batches, objective: Objective) -> float:
    """The mean of the metric in evaluation mode; the model's mode is put back.

    Raises:
        ConfigError: there is no example.
        TrainingError: the mean is not finite.
    """
    return examine(model, batches, objective)[0]


def examine(model: nn.Module, batches: Batches, objective: Objective) -> tuple[float, float]:
    """The mean of the metric and its standard error; the rest as `validate`."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    total, squares, count = 0.0, 0.0, 0
    try:
        with torch.no_grad():
            for x, y in batches:
                values = objective.metric(call(model, x), y).double()
                total, count = total + float(values.sum()), count + values.numel()
                squares += float(values.square().sum())
    finally:
        for module, mode in modes:
            module.training = mode
    if not count:
        raise ConfigError("validate: there is no example. Give at least one batch.")
    mean = total / count
    if not math.isfinite(mean):
        raise TrainingError(
            f"validate: the mean {objective.name} of {count} examples is {mean}. Look at "
            f"the inputs and targets of the validation and test data."
        )
    return mean, math.sqrt(max(0.0, squares / count - mean**2) / count)
