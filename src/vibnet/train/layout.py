"""How a model's weights lie in memory while it trains."""

import torch
from torch import Tensor, nn

from vibnet.graph.trial.cut import LAST, laid_out, layout

Formats = dict[str, torch.memory_format]


def put_channels_last(model: nn.Module) -> Formats:
    """Lay out all weights of images and volumes channels last, in place; returns how they lay.

    Convolutions then give their outputs so too, of images of one channel as well. On a CPU a step
    is up to 1.7 times faster
    (docs/lab-notes.md).
    """
    formats = {}
    for name, tensor in _tensors(model):
        formats[name] = layout(tensor)
        if tensor.ndim in LAST:
            tensor.data = laid_out(tensor.data, LAST[tensor.ndim])
    return formats


def put_back(model: nn.Module, formats: Formats) -> None:
    """Lay a model out as it was, in place; it may have been cut since."""
    for name, tensor in _tensors(model):
        if name in formats:
            tensor.data = laid_out(tensor.data, formats[name])


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of a parameter's shape, laid out as the parameter is; others as they are."""
    if value.shape != parameter.shape:
        return value
    return laid_out(value, layout(parameter))


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
