"""Does the small model answer as the one it was cut from?"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from vibnet.errors import VerificationError
from vibnet.graph.capture.capture import place_of
from vibnet.graph.capture.example import arguments, tensors
from vibnet.graph.sites.branches import held
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.structure import Graph
from vibnet.graph.trial.cut import cut
from vibnet.surgery.fold import bare, closed, fold
from vibnet.surgery.gated import Gated

LARGEST_DOUBLE = 2**30  # bytes of a model that is verified in float64
FACTOR = 100  # of what rounding moves the answers by
Answers = list[list[Tensor]]  # for every input the outputs


def _run(model: nn.Module, example: Any, dtype: torch.dtype | None) -> list[Tensor]:
    def given(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        # a copy, for a forward may write into it
        return (x.to(dtype) if dtype and x.is_floating_point() else x).clone()

    args, kwargs = tree_map(given, arguments(example))
    with torch.no_grad(), torch.random.fork_rng():
        output = model(*args, **kwargs)
    return [x.to(torch.complex128) if x.is_complex() else x.double() for x in tensors(output)]


def _ready(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return copy.deepcopy(model).to(dtype).eval()


def answers(model: nn.Module, example: Any, dtype: torch.dtype | None) -> list[Tensor]:
    """The outputs of a model in eval mode, in a floating point type or its own, on a fresh copy."""
    return _run(_ready(model, dtype), example, dtype)


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Watches a forward for casts to a coarser type: `eps` is the relative step of the coarsest."""

    def __init__(self, eps: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.eps = eps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            kinds = {x.dtype for x in (args[0], out)}
            if all(kind.is_floating_point for kind in kinds):
                self.eps = max(self.eps, torch.finfo(out.dtype).eps)
        return out


def shuffled(example: Any) -> Any:
    """An example with the values of every tensor in another order, or drawn where all are equal.

    Numbers stay in the range that the model is used to. None where nothing would change.
    """
    source = torch.Generator().manual_seed(0)
    changed = False

    def other(x: Any) -> Any:
        nonlocal changed
        if not isinstance(x, Tensor) or x.dtype == torch.bool or x.numel() < 2:
            return x
        constant = bool((x == x.flatten()[0]).all())
        if constant and not x.is_floating_point():
            if x.device.type != "cpu":
                return x  # a number out of range would be the end of the process's device
            changed = True
            return torch.randint(0, int(x.flatten()[0].abs()) + 2, x.shape, generator=source).to(x)
        changed = True
        if constant:
            return torch.randn(x.shape, generator=source).to(x)
        order = torch.randperm(x.numel(), generator=source)
        return x.flatten()[order.to(x.device)].reshape(x.shape)

    made = tree_map(other, example)
    return made if changed else None


def reference(
    model: nn.Module, example: Any, dtype: torch.dtype | None
) -> tuple[list[Any], Answers, list[list[float]]]:
    """The inputs that answers are compared on, a model's answers, and how far rounding moves them.

    Every weight is moved by about one rounding error, of the coarsest type that the forward casts
    to, twice, and the answers watched: large numbers that stay where they are, as in masks, do not
    hide what the others do. Every run has a fresh copy: a model may keep state between calls.
    """
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()} or {torch.float32}
    with _Rounding(max(torch.finfo(k).eps for k in ({dtype} if dtype else kinds))) as watched:
        exact = [answers(model, example, dtype)]
    inputs, eps = [example], watched.eps
    other = shuffled(example)
    if other is not None:
        try:
            exact.append(answers(model, other, dtype))
            inputs.append(other)
        except Exception:  # the model takes no such input: then without it
            other = None
    noise = [[_floor(x) * eps for x in outputs] for outputs in exact]
    source = torch.Generator().manual_seed(0)
    for n in (0, len(inputs) - 1):
        moved = _ready(model, dtype)
        for p in (moved.model if isinstance(moved, Gated) else moved).parameters():
            if p.is_floating_point():
                step = 1 + eps * torch.randn(p.shape, generator=source, dtype=torch.float64)
                p.data = (p.double() * step.to(p.device)).to(p.dtype)
        gaps = differences(exact[n], _run(moved, inputs[n], dtype))
        noise[n] = [max(a, b) if b < math.inf else a for a, b in zip(noise[n], gaps, strict=True)]
    if len({len(outputs) for outputs in exact}) == 1:  # one draw may by chance move little
        noise = [list(map(max, *noise, noise[0])) for _ in inputs]
    return inputs, exact, noise


def _floor(x: Tensor) -> float:
    """The lower tenth of the sizes of a tensor's numbers."""
    sizes = x.abs()[x.isfinite() & (x != 0)].sort().values
    return float(sizes[len(sizes) // 10]) if len(sizes) else 0.0


def differences(a: list[Tensor], b: list[Tensor]) -> list[float]:
    """The largest difference of every output; the same infinity or no number is no difference."""
    out = []
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            out.append(math.inf)
            continue
        gaps = (x - y).abs()[(x != y) & ~(x.isnan() & y.isnan())].nan_to_num(math.inf, math.inf)
        out.append(float(gaps.max()) if len(gaps) else 0.0)
    return out


def _scale(x: Tensor) -> float:
    finite = x[x.isfinite()]
    return max(float(finite.abs().max()), 1e-30) if len(finite) else 1e-30


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of two answers, as a part of each output's largest number."""
    gaps = differences(a, b)
    return max((gap / _scale(x) for x, gap in zip(a, gaps, strict=True) if gap), default=0.0)


def _check(exact: Answers, found: Answers, noise: list[list[float]]) -> float:
    """The largest difference as a part of the output's scale.

    Raises:
        VerificationError: it is larger than rounding explains.
    """
    for old, new, rounding in zip(exact, found, noise, strict=True):
        for x, gap, one in zip(old, differences(old, new), rounding, strict=True):
            if not gap <= FACTOR * one:
                raise VerificationError(
                    f"the small model answers differently: outputs moved by {gap / _scale(x):.1e} "
                    f"of their scale, rounding explains {FACTOR * one / _scale(x):.1e}. Nothing "
                    f"was changed. Please report the model."
                )
    return max(map(difference, exact, found))


def _told(small: nn.Module, example: Any, dtype: torch.dtype | None) -> list[Tensor]:
    """The answers of a small model.

    Raises:
        VerificationError: it has none.
    """
    try:
        return answers(small, example, dtype)
    except Exception as error:
        raise VerificationError(
            f"the small model does not run: {error} (at {place_of(error)}). Nothing was changed. "
            f"Please report the model."
        ) from error


def agree(one: nn.Module, other: nn.Module, example: Any) -> bool:
    """Whether two models answer alike, in their own types, as far as rounding lets one tell."""
    inputs, exact, noise = reference(one, example, None)
    try:
        _check(exact, [answers(other, x, None) for x in inputs], noise)
    except VerificationError:
        return False
    return True


def apart(one: nn.Module, other: nn.Module, example: Any) -> float:
    """How far the answers of two models are apart, as a part of their scale.

    On the example, and on the example with its numbers in another order where the models take it.
    """
    found = [difference(answers(one, example, None), answers(other, example, None))]
    if (moved := shuffled(example)) is not None:
        try:
            found.append(difference(answers(one, moved, None), answers(other, moved, None)))
        except Exception:  # the models take no such input: then without it
            return found[0]
    return max(found)


def _folded(
    inner: nn.Module, graph: Graph, multipliers: Tensor | None, dtype: torch.dtype | None
) -> nn.Module:
    """A copy of a model, at full size, with the multipliers in its weights."""
    whole = bare(inner).to(dtype)
    if multipliers is not None:
        fold(whole, graph, multipliers)
    return whole


def compare(
    model: nn.Module,
    inner: nn.Module,
    small: nn.Module,
    graph: Graph,
    kept: Mask,
    multipliers: Tensor | None,
    example: Any,
    finish: Callable[[nn.Module], None] = lambda _model: None,
) -> float | None:
    """How far the small model's answers are from those of the model it was cut from.

    On the example, and on the example with its numbers in another order. Models under 1 GiB: the
    same cut is made on a float64 copy and must agree to 100 times what rounding does there; then
    the small model itself must agree to 100 times the rounding that the model's own type shows.
    Larger ones: only the second, against the model as it is.

    Args:
        model: the gated model, or for a given plan the plain one.
        finish: what is done to a model after the cut.

    Returns:
        The largest difference as a part of the output's scale, or None where nothing could be
        compared, for the outputs are the same whatever the input.

    Raises:
        VerificationError: further than rounding explains.
    """
    dtypes = {p.dtype for p in inner.parameters() if p.is_floating_point()} or {torch.float32}
    own = next(iter(dtypes)) if len(dtypes) == 1 else None  # of several types, each stays
    size = sum(p.numel() * p.element_size() for p in inner.parameters())
    finer = torch.float64 if size < LARGEST_DOUBLE and dtypes != {torch.float64} else None

    def seen() -> tuple[list[Any], Answers, list[list[float]]]:
        whole = model
        if not isinstance(model, Gated):
            whole = closed(_folded(inner, graph, multipliers, finer), graph, kept)
        return reference(whole, example, finer or own)

    try:
        inputs, exact, noise = seen()
    except Exception:
        if finer is None:
            raise
        finer = None  # the forward makes tensors of its own type: in that, then
        inputs, exact, noise = seen()
    gap = None
    if finer is not None:
        twin = _folded(inner, graph, multipliers, finer)
        cut(twin, graph, held(graph.sites, kept))
        finish(twin)
        gap = _check(exact, [_told(twin, x, finer) for x in inputs], noise)
        whole = model if isinstance(model, Gated) else closed(inner, graph, kept)
        rounded = [answers(whole, x, own) for x in inputs]
        eps = max(torch.finfo(kind).eps for kind in dtypes)
        noise = [
            [max(one, eps * _floor(x)) for one, x in zip(gaps, old, strict=True)]
            for gaps, old in zip(map(differences, exact, rounded), exact, strict=True)
        ]
    moved = _check(exact, [_told(small, x, own) for x in inputs], noise)
    if len(exact) == 2 and not any(differences(*exact)):
        return None
    if not any(x.numel() for given in exact for x in given):
        return None  # an example without numbers shows nothing
    return moved if gap is None else gap
