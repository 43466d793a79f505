"""The reference of the other tools: a copy of the whole model in which what goes is zero."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from liveliness import call, tensors

EXACT = 1e-9


def zero(layer: nn.Module, taken: Iterable[int]) -> None:
    """Set output slices of a layer to zero: rows of its weight, and of its bias."""
    rows = torch.tensor(sorted(taken), dtype=torch.int64)
    for leaf in ("weight", "bias"):
        value = getattr(layer, leaf, None)
        if isinstance(value, torch.Tensor):
            axis = 1 if _columns_are_outputs(layer) and value.ndim > 1 else 0
            value.data.index_fill_(axis, rows[rows < value.shape[axis]], 0.0)


def _columns_are_outputs(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvTransposeNd | nn.Embedding)


def gap(masked: nn.Module, small: nn.Module, example: Any) -> float | None:
    """How far two models are apart in float64, as a part of their scale; None: other shapes."""
    with torch.no_grad():
        wanted = [x.clone() for x in tensors(call(masked.double().eval(), example))]
        found = tensors(call(small.double().eval(), example))
    if [x.shape for x in wanted] != [x.shape for x in found]:
        return None
    scale = max(float(x.abs().max()) for x in wanted)
    return max(float((a - b).abs().max()) for a, b in zip(wanted, found, strict=True)) / scale
