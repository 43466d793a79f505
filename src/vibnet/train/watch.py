"""What can be seen to go wrong: numbers that are not finite, gates that cannot close in time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vibnet.config import Settings
from vibnet.errors import TrainingError
from vibnet.graph.capture.example import arguments
from vibnet.surgery.gated import Gated
from vibnet.surgery.multiply import Multiply
from vibnet.train.schedule import rate


def diverged(model: nn.Module, x: Any, where: str) -> TrainingError:
    """The error for a number that is not finite: it names the first place that is not.

    Args:
        model: in the state that gave the number.
        x: the inputs that gave it.
        where: phase, epoch and step.
    """
    if not finite(x):
        return TrainingError(f"the inputs of {where} are not finite. Look at the data.")
    return TrainingError(
        f"training diverged in {where}: {_culprit(model, x)}. Lower the learning "
        f"rate, clip the gradient, or look at the data."
    )


def finite(value: Any) -> bool:
    """Whether all numbers of all tensors in a tree are finite."""
    tensors = [x for x in tree_leaves(value) if isinstance(x, Tensor) and x.is_floating_point()]
    return all(bool(x.isfinite().all()) for x in tensors)


def _culprit(model: nn.Module, x: Any) -> str:
    for name, parameter in model.named_parameters():
        if not finite(parameter):
            return f"the parameter {name} is not finite"
    found: list[str] = []
    handles = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: None if found or finite(out) else found.append(name)
        )
        for name, module in _named(model)
    ]
    try:
        args, kwargs = arguments(x)
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the output of {found[0]} is the first that is not finite"
    return "the model's outputs are finite, the loss of them or the penalty is not"


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model, by what its owner calls them."""
    inner = model
    if isinstance(model, Gated):
        inner = model.model
        for place in model.places:
            assert isinstance(place, Multiply)
            yield f"the gate at {place.at}", place
    for name, module in inner.named_modules():
        yield name or "the model itself", module


def out_of_reach(gated: Gated, settings: Settings, steps: int) -> str:
    """Why no gate can close in the steps left, or nothing.

    Under Adam a parameter moves by about its learning rate in a step. A unit closes when its mean
    has come down to its noise: from the start, mu = 1 and log sigma^2 = -9, after about 0.98.
    """
    if settings.optimizer == "sgd" or not settings.gamma:
        return ""
    points = min(steps, 1000)
    mean = sum(rate(settings.gate_schedule, k / points) for k in range(points)) / points
    travel = mean * steps * settings.gate_lr
    gates = [gate for _, gate in gated.all_gates()]
    if any(bool(gate.closes_within(travel).any()) for gate in gates):
        return ""
    least = min(float(gate.mu.detach().abs().min()) for gate in gates)
    return (
        f"no gate can close: {steps} steps at gate_lr {settings.gate_lr:g} move a multiplier by "
        f"{travel:.2g} at most, and the smallest is {least:.2g}. Raise gate_lr or train "
        f"for more epochs."
    )
