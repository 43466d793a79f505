"""Does the small model answer as the one it was cut from?"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import VerificationError
from vibnet.graph.capture import arguments
from vibnet.graph.constraints import Mask
from vibnet.graph.cut import cut
from vibnet.graph.sites import Graph
from vibnet.surgery.fold import bare, closed, fold
from vibnet.surgery.gated import Gated

LARGEST_DOUBLE = 2**30  # bytes of a model that is verified in float64
TOLERANCE = 1e-10  # of the output scale, float64


def answers(model: nn.Module, example: Any, dtype: torch.dtype) -> list[Tensor]:
    """The outputs of a model in eval mode, in a floating point type, on a copy."""
    model = copy.deepcopy(model).to(dtype).eval()
    cast = lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x  # noqa: E731
    args, kwargs = tree_map(cast, arguments(example))
    with torch.no_grad(), torch.random.fork_rng():
        output = model(*args, **kwargs)
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    return [x.double() for x in tree_leaves(values) if isinstance(x, Tensor)]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of two answers, as a part of the largest output."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        scale = max(float(x.abs().max()), 1e-30) if x.numel() else 1.0
        gap = float((x - y).abs().max()) / scale if x.numel() else 0.0
        worst = gap if math.isnan(gap) else max(worst, gap)
    return worst


def _folded(
    inner: nn.Module, graph: Graph, multipliers: Tensor | None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of a model, at full size, with the multipliers in its weights."""
    whole = bare(inner)
    if dtype is not None:
        whole = whole.to(dtype)
    if multipliers is not None:
        fold(whole, graph, multipliers)
    return whole


def _refuse(gap: float, allowed: float) -> None:
    if not gap <= allowed:
        raise VerificationError(
            f"the small model answers differently: outputs moved by {gap:.1e} of their scale, "
            f"{allowed:.0e} is allowed. Nothing was changed. Please report the model."
        )


def compare(
    model: nn.Module,
    inner: nn.Module,
    small: nn.Module,
    graph: Graph,
    kept: Mask,
    multipliers: Tensor | None,
    example: Any,
) -> float:
    """How far the small model's answers are from those of the model it was cut from.

    Models under 1 GiB: the same cut is made on a float64 copy and must agree to 1e-10 of the
    output scale; then the small model itself must agree with it to 100 times the rounding noise
    that the model's own type shows. Larger ones: only the second, against the model as it is.

    Args:
        model: the gated model, or for a given plan the plain one.

    Raises:
        VerificationError: further than rounding explains.
    """
    own = next((p.dtype for p in inner.parameters() if p.is_floating_point()), torch.float32)
    size = sum(p.numel() * p.element_size() for p in inner.parameters())
    gap, exact = 0.0, None
    if size < LARGEST_DOUBLE:
        twin = _folded(inner, graph, multipliers, torch.float64)
        reference = model if isinstance(model, Gated) else closed(twin, graph, kept)
        cut(twin, graph, kept)
        exact = answers(reference, example, torch.float64)
        gap = difference(exact, answers(twin, example, torch.float64))
        _refuse(gap, TOLERANCE)
    else:
        reference = model if isinstance(model, Gated) else closed(inner, graph, kept)
    rounded = answers(reference, example, own)
    noise = difference(exact, rounded) if exact else 0.0
    moved = difference(exact or rounded, answers(small, example, own))
    _refuse(moved, 100 * max(noise, torch.finfo(own).eps))
    return gap if exact else moved
